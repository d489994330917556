"""The network that corrects coarse steps: its definition, training, export, and the runs that it corrects."""
