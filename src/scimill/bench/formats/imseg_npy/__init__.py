"""The cases of imseg as pairs of .npy files."""
