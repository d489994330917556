"""The two networks (VICReg): their definition, training, embeddings and evaluation."""
