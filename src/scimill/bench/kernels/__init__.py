"""Values of the workloads, and measures of similarity: pure functions of arrays."""
