"""A difference between a live database and the history: what, how bad, and how to undo it."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """What a difference endangers; the order is that of a report."""

    ISOLATION = "isolation"
    """Who may read or write which rows."""
    DATA = "data"
    """What rows there can be."""
    BEHAVIOUR = "behaviour"
    """What statements do, or how long they take."""
    COSMETIC = "cosmetic"
    """Comments."""


@dataclass(frozen=True)
class Difference:
    """One part of an object that is not as the history makes it."""

    object: str
    """The object's heading in a snapshot, such as `table todo`."""
    part: str
    """The part's name in a snapshot, such as `column due_at`; '' for the whole object."""
    was: str | None
    """Its definition in the history; None if the history does not have it."""
    found: str | None
    """Its definition in the database (`is` in JSON); None if the database does not have it."""
    severity: Severity
    sentence: str
    """For people, without a full stop: `column todo.priority was added`."""
    sql: str | None = None
    """Makes the database what the history says; None if no statement is known to be safe."""
    obstacle: str | None = None
    """Why the SQL that would do so failed on a copy, in PostgreSQL's words."""
