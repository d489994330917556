"""The formats of the data sets: what each file holds, byte for byte, and how it is read back."""
