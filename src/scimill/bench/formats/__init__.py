"""The formats of the datasets: what each file holds, byte for byte, and how it is read back."""
