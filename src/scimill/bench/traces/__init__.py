"""I/O traces: recording, reading and writing them."""
