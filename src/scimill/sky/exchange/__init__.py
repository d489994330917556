"""The nodes' files: finding, naming, indexing and decoding them, and writing pairs as loose files."""
