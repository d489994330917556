"""Pictures of turbulence and of compared runs, as PNG files."""
