"""The faces of clips and photos, aligned and sorted, on disk."""
