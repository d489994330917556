"""Composition, geometry, neighbours, scores and choice of structures, as pure functions of arrays."""
