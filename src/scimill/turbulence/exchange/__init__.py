"""Files of other programs: read initial states from them, write datasets for them."""
