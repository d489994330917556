"""The store: one parallel HDF5 file, its ledger and its guarantees. See docs/format.md for the contract."""
