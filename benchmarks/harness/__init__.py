"""What benchmarks and tests share: a server, a page, a clock, a load."""
