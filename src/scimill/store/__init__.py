"""The store: one parallel HDF5 file, its ledger and its guarantees. See docs/format.md for the contract."""

from scimill.parallel.world import defer_mpi

defer_mpi()  # before any module of this folder imports h5py
