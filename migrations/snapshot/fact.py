"""A fact is one row of query.sql; a snapshot is all of them, sorted."""

from typing import NamedTuple


class Fact(NamedTuple):
    """An object ('table todo'), one of its parts ('column due_at'), and the part's definition."""

    object: str
    part: str
    definition: str


type Snapshot = tuple[Fact, ...]
