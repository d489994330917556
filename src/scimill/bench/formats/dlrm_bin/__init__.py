"""Binary files for dlrm."""
