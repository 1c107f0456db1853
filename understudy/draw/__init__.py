"""What is drawn into a picture for people to read."""
