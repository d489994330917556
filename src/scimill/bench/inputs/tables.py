"""The files ``day_0.parquet`` and so on of dlrm, as an input."""

from scimill.bench.inputs.columns import tables

PATTERNS, find, scan = tables.PATTERNS, tables.find, tables.scan
