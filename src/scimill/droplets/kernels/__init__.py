"""The physics of droplets, their sampling and integration: pure functions of arrays."""
