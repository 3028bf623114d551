"""Which revision's schema a live database has, beside the one that alembic_version records.

The two may be different: a restored backup, a stamp by hand, a script past Alembic. What to do then
depends on what the schema is, and not on what the record says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from migrations import snapshot
from schema.live import history_schemas
from schema.live.history_schemas import BASE
from schema.live.read import Live, Recorded
from schema.text import pluralize

REMEDY = (
    "Revert unwanted changes by hand. To keep a change, write a revision for it, revert the manual"
    " change, then deploy."
)


@dataclass(frozen=True)
class Comparison:
    """A live schema beside the history's."""

    recorded: Recorded
    revision: str | None
    """The recorded revision; None where it is not exactly one that the history has."""
    nearest: str
    """The revision, or `base`, whose schema differs in the fewest facts."""
    difference_count: int
    """How many facts only one of the two has: `nearest`, or the database."""
    difference: str
    """What the history builds at `nearest` ('-') and the database has ('+')."""
    differing_at_revision: int | None
    """How many facts differ from the recorded revision's."""
    head: str
    behind: int
    """How many revisions the head is further than the recorded one, or else than the nearest."""
    unverified: Sequence[str]
    """Revisions that a stamp at `nearest` would pass over, and that change no schema object."""

    @property
    def equals(self) -> str | None:
        """The revision whose schema the database has, if there is one."""
        return None if self.difference else self.nearest

    @property
    def misplaced(self) -> bool:
        """Whether the record can be read, and is not the revision that the schema is nearest to."""
        return self.recorded.unreadable is None and self.revision != self.nearest

    @property
    def drifted(self) -> bool:
        """Whether the schema is not what the history builds at the recorded revision."""
        return bool(self.difference) or self.misplaced


def compare(live: Live, history: Mapping[str, snapshot.Snapshot]) -> Comparison:
    """Find the revision whose schema a live database has, or the nearest, in the built history."""
    names = list(history)
    known = [one for one in live.recorded.revisions if one in history and one != BASE]
    revision = known[0] if len(live.recorded.revisions) == len(known) == 1 else None
    nearest = history_schemas.nearest(history, live.facts, revision)
    at = None if revision is None else history_schemas.distance(history[revision], live.facts)
    return Comparison(
        recorded=live.recorded,
        revision=revision,
        nearest=nearest,
        difference_count=history_schemas.distance(history[nearest], live.facts),
        difference=snapshot.difference(history[nearest], live.facts),
        differing_at_revision=at,
        head=names[-1],
        behind=len(names) - 1 - names.index(revision or nearest),
        unverified=_unverified(live.recorded, revision, nearest, history),
    )


def statement(found: Comparison) -> str:
    """Say what the database records and what its schema is, in a clause without a full stop."""
    joint = ", but" if found.revision else ";"
    return f"{_record(found)}{joint} {verdict(found)}"


def verdict(found: Comparison) -> str:
    """Say which revision the schema is, in a clause."""
    if found.equals is not None:
        return f"the schema equals {_named(found.equals)}"
    away = f"{pluralize(found.difference_count, 'fact')} away"
    if found.differing_at_revision is not None:
        away += f", and {found.differing_at_revision:,} from {found.revision}"
    return f"the schema equals no revision, and is nearest to {_named(found.nearest)} ({away})"


def remedy(found: Comparison) -> str | None:
    """Say what to do, in a sentence; None where the schema is the recorded revision's."""
    if found.misplaced:
        clause = advice(found)
        return f"{clause[0].upper()}{clause[1:]}."
    return REMEDY if found.drifted else None


def advice(found: Comparison) -> str:
    """Say what to do about a record that is not what the schema is, in a clause."""
    if found.revision is not None:
        either, purge = "", ""
    elif len(found.recorded.revisions) > 1:
        either = "find out which one is right, and leave only its row in alembic_version"
        purge = "--purge "
    else:
        either, purge = "check out the commit that was deployed there", "--purge "
    stamp = f"DATABASE_URL=… alembic stamp {purge}{found.nearest}"
    if found.equals is None:
        return either or (
            "find out which of the two is right before you change anything; if it is"
            f" {found.nearest}, bring the schema to it (schema drift shows the difference; what"
            f" only the database has may hold rows), then run {stamp}"
        )
    clause = f"if {found.equals} is right, run {stamp}"
    if either:
        clause = f"{either}, or, {clause}"
    if found.unverified:
        clause += (
            "; no schema shows what was done to rows, so find out first whether"
            f" {', '.join(found.unverified)} ran"
        )
    return clause


def _record(found: Comparison) -> str:
    """Say what alembic_version says."""
    revisions = found.recorded.revisions
    if found.revision is not None:
        return f"alembic_version says {found.revision}"
    if len(revisions) > 1:
        return (
            f"The database records {len(revisions)} revisions ({', '.join(revisions)}), but the"
            " history is one line"
        )
    return f"The database is at revision {', '.join(revisions)}, which this checkout does not have"


def _named(revision: str) -> str:
    return f"{BASE}, where nothing is built yet" if revision == BASE else revision


def _unverified(
    recorded: Recorded,
    revision: str | None,
    nearest: str,
    history: Mapping[str, snapshot.Snapshot],
) -> list[str]:
    """Name the revisions between the recorded and the nearest one that change no schema object.

    Where the record is of no use, all up to the nearest one may not have run.
    """
    if recorded.unreadable is not None or revision == nearest:
        return []
    names = list(history)
    first = last = names.index(nearest)
    while first and history[names[first - 1]] == history[nearest]:
        first -= 1
    known = 0 if revision is None else names.index(revision)
    return history_schemas.rows_only(history, names[min(first, known) : max(last, known) + 1])
