"""Batch jobs: a machine, resources and one command make a script for its scheduler. It needs no MPI, HDF5 or torch."""
