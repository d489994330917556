"""The workloads as one parallel HDF5 file."""
