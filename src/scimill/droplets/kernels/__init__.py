"""Droplet physics, sampling and integration, as pure functions of arrays."""
