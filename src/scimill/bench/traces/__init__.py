"""Recording, reading and writing I/O traces."""
