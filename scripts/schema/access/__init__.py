"""What each role can do: statements tried on rows, and privileges as they work out."""
