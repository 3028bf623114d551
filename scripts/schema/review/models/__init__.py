"""The models of both releases, tried on both schemas."""
