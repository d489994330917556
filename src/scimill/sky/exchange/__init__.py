"""Files of the nodes: find, name, index and decode them, and write pairs as loose files."""
