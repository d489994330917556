"""The database of structures: journals, compressed segments, snapshots, reductions and caches."""
