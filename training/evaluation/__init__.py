"""How good a persona is: the figures, and the independent look that they rest on."""
