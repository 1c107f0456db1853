"""Serving a bundle: the Vertex AI custom prediction routine, and the same predictor at home."""
