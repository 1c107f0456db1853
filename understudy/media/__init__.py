"""Files that people bring, and the clips that are made of them."""
