"""Arrays of dlrm: .npz archives, .npy triplets, parquet."""
