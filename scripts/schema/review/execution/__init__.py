"""The revisions, executed on rows and traced."""
