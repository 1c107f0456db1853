"""Serving a bundle: the Vertex AI custom prediction routine, and the same predictor at home."""

import understudy as understudy  # keeps libraries quiet before any is loaded
