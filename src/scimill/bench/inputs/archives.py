"""The files ``day_0_reordered.npz`` and so on of dlrm, as an input."""

from scimill.bench.inputs.columns import archives

PATTERNS, find, scan = archives.PATTERNS, archives.find, archives.scan
