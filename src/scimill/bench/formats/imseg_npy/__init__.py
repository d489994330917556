"""Cases of imseg as pairs of .npy files."""
