"""Data-parallel training of any campaign's network on a store."""
