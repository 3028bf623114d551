"""The checks of `schema check`, one module for each."""
