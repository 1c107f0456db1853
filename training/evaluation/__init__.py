"""How good a swap is: what is measured, by whom, and how figures add up."""
