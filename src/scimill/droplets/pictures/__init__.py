"""Pictures of droplets, their outcomes, and a network's errors, as PNG files."""
