"""Neon branches: throwaway copies of a database, for a pull request or a person."""
