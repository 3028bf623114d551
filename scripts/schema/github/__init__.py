"""What is told to people on GitHub: a comment on a pull request, an issue about drift."""
