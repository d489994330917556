"""The files ``day_0_dense.npy`` and so on of DLRMv2, as an input."""

from scimill.bench.inputs.columns import triplets

PATTERNS, find, scan = triplets.PATTERNS, triplets.find, triplets.scan
