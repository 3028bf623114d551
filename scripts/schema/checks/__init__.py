"""One module for each check that `schema check` makes."""
