"""Pictures of droplets, of their outcomes and of a network's errors, as PNG files."""
