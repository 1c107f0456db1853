"""The Studio page."""
