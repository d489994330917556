"""Data sets for storage benchmarks: made, scaled, checked and compared at the speed of the disk."""
