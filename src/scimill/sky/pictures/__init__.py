"""Pictures of sky pairs, as PNG files."""
