"""Generated rows for any revision, from the catalogs alone: valid, awkward and repeatable."""
