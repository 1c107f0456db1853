"""Screenfuls that run; the tests run them."""
