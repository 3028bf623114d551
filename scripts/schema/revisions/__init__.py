"""The history of revisions: reading its files, and running them."""
