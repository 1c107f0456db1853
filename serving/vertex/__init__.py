"""The endpoint on Vertex AI: what it is called with, sized and deployed."""
