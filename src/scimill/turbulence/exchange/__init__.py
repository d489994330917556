"""Files of other programs: initial states from them, datasets for them."""
