"""Text files for dlrm."""
