"""The workloads: the laws of their records, and the kernels that make them, bound to a configuration."""
