"""What belongs to one viewer, or to all, whatever page is open."""
