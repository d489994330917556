"""The text file of dlrm."""
