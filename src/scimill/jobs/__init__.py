"""Batch jobs: makes a script from a machine, resources and one command. Needs no MPI, HDF5 or torch."""
