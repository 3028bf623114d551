"""Read a database's schema as sorted facts, write them as text, and compare two schemas.

The facts are the rows of query.sql. schema.txt is their text at the head revision, fingerprints.txt
a hash of each object at every revision: a deploy has only these two.
"""

from migrations.snapshot import fingerprints
from migrations.snapshot.catalog import read
from migrations.snapshot.diff import difference, text_difference
from migrations.snapshot.fact import Fact, Snapshot
from migrations.snapshot.layout import layout, revision

__all__ = [
    "Fact",
    "Snapshot",
    "difference",
    "fingerprints",
    "layout",
    "read",
    "revision",
    "text_difference",
]
