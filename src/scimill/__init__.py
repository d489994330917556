"""scimill: mills simulations into training sets, on many ranks, into one HDF5 file."""

__version__ = "0.1.0"
