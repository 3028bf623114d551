"""A release: the wheel of the models, and what the changelog says of it."""
