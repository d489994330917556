"""The network that corrects coarse steps: definition, training, export and corrected runs."""
