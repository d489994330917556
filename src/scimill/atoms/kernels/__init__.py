"""Composition, geometry, neighbours, scores and choice of structures: pure functions of arrays."""
