"""The access of each role: statements tried on rows, and effective privileges."""
