"""Long work in processes of their own, one at a time."""
