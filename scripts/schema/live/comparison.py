"""Compare a live schema with the history, and find the revision that it equals.

That can be another revision than the one in alembic_version: after a restored backup, a manual
stamp or a script that does not use Alembic. The schema then decides what to do, not the record.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from migrations.snapshot import fingerprints
from migrations.snapshot.fingerprints import BASE, History
from schema.live.read import Live, Recorded
from schema.text import capitalized, pluralize

REMEDY = (
    "Find out first whose a change is: what was added may hold rows. To keep a change, write a"
    " revision for it, and deploy it after the change was undone."
)


@dataclass(frozen=True)
class Comparison:
    """The result of comparing a live schema with the history."""

    recorded: Recorded
    revision: str | None
    """The recorded revision; None unless it is exactly one revision of the history."""
    nearest: str
    """The revision, or `base`, from which the fewest objects differ."""
    objects: fingerprints.Comparison
    """The objects that differ from `nearest`, and those that no revision has."""
    differing_at_revision: int | None
    """Number of objects that differ from the recorded revision."""
    head: str
    behind: int
    """Number of revisions from the recorded one, or else the nearest one, to the head."""
    unverified: Sequence[str]
    """Revisions that a stamp at `nearest` would pass over and that change no schema object."""
    ahead: bool = False
    """Whether `nearest` comes after the recorded revision: a stamp would pass revisions over."""

    @property
    def equals(self) -> str | None:
        """The revision whose schema the database has, or None."""
        return None if self.objects.differing else self.nearest

    @property
    def record_differs(self) -> bool:
        """Whether the recorded revision was read and is not the nearest one."""
        return self.recorded.unreadable is None and self.revision != self.nearest

    @property
    def drifted(self) -> bool:
        """Whether the schema differs from the history at the recorded revision."""
        return bool(self.objects.differing) or self.record_differs


def compare(live: Live, history: History) -> Comparison:
    """Compare a live schema with the history."""
    names = list(history)
    known = [one for one in live.recorded.revisions if one in history and one != BASE]
    revision = known[0] if len(live.recorded.revisions) == len(known) == 1 else None
    found = fingerprints.fingerprint(live.facts)
    nearest = fingerprints.nearest(history, found, revision)
    at = None if revision is None else len(fingerprints.compare(history, revision, found).differing)
    return Comparison(
        recorded=live.recorded,
        revision=revision,
        nearest=nearest,
        objects=fingerprints.compare(history, nearest, found),
        differing_at_revision=at,
        head=names[-1],
        behind=len(names) - 1 - names.index(revision or nearest),
        unverified=_unverified(live.recorded, revision, nearest, history),
        ahead=revision is not None and names.index(nearest) > names.index(revision),
    )


def sentence(found: Comparison) -> str:
    """Describe the recorded revision and the schema, in a sentence without a full stop."""
    if found.equals is not None and found.revision is not None and found.record_differs:
        return (
            f"The schema is exactly {_describe_revision(found.equals)}; only alembic_version says"
            f" {found.revision}"
        )
    joint = ", but" if found.revision else ";"
    return f"{_describe_record(found)}{joint} {verdict(found)}"


def verdict(found: Comparison) -> str:
    """Name the revision that the schema equals, in a clause."""
    if found.equals is not None:
        return f"the schema is exactly {_describe_revision(found.equals)}"
    away = f"{pluralize(len(found.objects.differing), 'object')} differ"
    if len(found.objects.differing) == 1:
        away += "s"
    if found.differing_at_revision is not None and found.record_differs:
        away += f", and {found.differing_at_revision:,} from {found.revision}"
    return (
        f"the schema equals no revision, and is nearest to {_describe_revision(found.nearest)}"
        f" ({away})"
    )


def remedy(found: Comparison) -> str | None:
    """Say what to do, in a sentence; None without drift."""
    if found.record_differs:
        return f"{capitalized(advice(found))}."
    return REMEDY if found.drifted else None


def stamp_sql(found: Comparison) -> str | None:
    """Return the SQL that records the revision whose schema the database has; None if none does."""
    if found.equals is None or not found.record_differs or not found.recorded.table:
        return None
    if found.equals == BASE:
        return "DELETE FROM public.alembic_version;"
    if found.revision is not None:
        return f"UPDATE public.alembic_version SET version_num = '{found.equals}';"
    return (
        "BEGIN; DELETE FROM public.alembic_version;"
        f" INSERT INTO public.alembic_version VALUES ('{found.equals}'); COMMIT;"
    )


def advice(found: Comparison) -> str:
    """Say what to do if the recorded revision is not the nearest one, in a clause."""
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
            f" {found.nearest}, bring the schema to it (schema drift shows the difference; tables"
            f" that only the database has may hold rows), then run {stamp}"
        )
    clause = f"if {found.equals} is right, run {stamp}"
    if sql := stamp_sql(found):
        clause += f", or {sql.rstrip(';')}"
    if either:
        clause = f"{either}, or, {clause}"
    if found.unverified:
        clause += (
            "; the schema does not show changes of rows, so find out first whether"
            f" {', '.join(found.unverified)} ran"
        )
    elif found.ahead:
        clause += (
            "; rows are not compared, so find out first whether what the revisions after"
            f" {found.revision} do to rows was done too: one that ended its own transaction may"
            " have stopped half-way"
        )
    return clause


def _describe_record(found: Comparison) -> str:
    revisions = found.recorded.revisions
    if found.revision is not None:
        return f"alembic_version records {found.revision}"
    if len(revisions) > 1:
        return (
            f"The database records {len(revisions)} revisions ({', '.join(revisions)}), but the"
            " history is linear"
        )
    return f"The database is at revision {', '.join(revisions)}, which this checkout does not have"


def _describe_revision(revision: str) -> str:
    return f"{BASE}, where nothing is built yet" if revision == BASE else revision


def _unverified(
    recorded: Recorded,
    revision: str | None,
    nearest: str,
    history: History,
) -> list[str]:
    """Return the revisions between the recorded and the nearest one that change no schema object.

    If the recorded one is unknown, all up to the nearest one count.
    """
    if recorded.unreadable is not None or revision == nearest:
        return []
    names = list(history)
    first = last = names.index(nearest)
    while first and history[names[first - 1]] == history[nearest]:
        first -= 1
    known = 0 if revision is None else names.index(revision)
    return without_schema_change(history, names[min(first, known) : max(last, known) + 1])


def without_schema_change(history: History, revisions: Sequence[str]) -> list[str]:
    """Return the revisions whose schema equals that of the revision before them.

    `revisions` are successive; the first one is never returned.
    """
    return [one for before, one in pairwise(revisions) if history[before] == history[one]]
