"""The commands that read an existing database: adopt, doctor, drift."""
