"""A model elsewhere: what is sent, how, and what happens when it does not answer."""
