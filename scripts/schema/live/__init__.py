"""Commands that read a database that somebody else owns."""
