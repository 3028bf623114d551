"""A fact: one row of the catalog query. A snapshot is all of them, sorted."""

from typing import NamedTuple


class Fact(NamedTuple):
    """One row of query.sql: an object ('table todo'), its part ('column due_at'), what it is."""

    object: str
    part: str
    definition: str


type Snapshot = tuple[Fact, ...]
