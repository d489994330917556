"""Exchange files: the original generator's headerless records, and the workbook of weird droplets."""
