"""Files of other programs: reading structures from them, writing sets for them."""
