"""How similar two datasets or two I/O traces are."""
