"""A model in a folder: its manifest, its files, what may be run of it."""
