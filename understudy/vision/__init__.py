"""What a camera sees: detector, mesh, tracker, and who a face is."""
