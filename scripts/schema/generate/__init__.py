"""The files that are written from the migrations."""
