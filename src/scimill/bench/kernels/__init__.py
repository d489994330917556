"""Values of the workloads and measures of similarity, as pure functions of arrays."""
