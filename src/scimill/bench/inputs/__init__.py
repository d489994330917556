"""Data sets that are read: scanned for defects, then read piece by piece. A module per kind of file."""
