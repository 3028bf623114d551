"""The revisions at which the history of the deploy's tests ends: they are merged and immutable."""

FIRST = "4c1f0b7a9d21"
TAGS = "2d6f90c4e7a3"
"""Makes todo_tag; the last one but LAST."""
LAST = "c58e14a7d0b9"
"""Grants on Alembic's table."""
