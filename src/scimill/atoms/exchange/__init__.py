"""Files of other programs: read structures from them, and write sets for them."""
