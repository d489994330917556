"""Pictures of datasets and of I/O traces, as PNG files."""
