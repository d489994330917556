"""The binary files of dlrm."""
