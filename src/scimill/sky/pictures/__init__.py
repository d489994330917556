"""Pictures of sky pairs and of what networks make of them, as PNG files."""
