"""Read a database's schema as sorted facts, lay it out for people, say how two schemas differ.

The facts come from one catalog query, query.sql. Its committed result at the head revision is
schema.txt. A deploy has only that text to compare with, so every difference is one of two texts.
"""

from migrations.snapshot.catalog import read
from migrations.snapshot.diff import difference, text_difference
from migrations.snapshot.fact import Fact, Snapshot
from migrations.snapshot.layout import layout, revision

__all__ = [
    "Fact",
    "Snapshot",
    "difference",
    "layout",
    "read",
    "revision",
    "text_difference",
]
