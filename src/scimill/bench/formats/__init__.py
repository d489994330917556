"""The formats of the datasets: the content of each file, byte for byte, and how it is read back."""
