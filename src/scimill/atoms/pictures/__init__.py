"""Pictures of active learning, as PNG files."""
