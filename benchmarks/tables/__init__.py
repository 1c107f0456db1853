"""The tables of `benchmarks.run`."""
