"""Array files for dlrm: .npz archives, .npy triplets, parquet."""
