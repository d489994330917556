"""Files of other programs: headerless records, and the workbook of weird droplets."""
