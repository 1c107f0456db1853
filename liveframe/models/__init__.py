"""Models that need no weights and know no faces; they go through the same seams as a swap."""
