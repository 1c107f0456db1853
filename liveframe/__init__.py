"""Any real-time frame model: a frame goes in, a frame comes out. Knows no faces."""
