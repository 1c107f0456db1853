"""What answers an endpoint's requests."""
