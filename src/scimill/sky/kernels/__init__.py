"""Cameras, clouds, the sun, resampling and retrieval: pure functions of arrays."""
