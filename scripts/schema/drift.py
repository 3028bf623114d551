"""`schema drift`: whether a live database still is what the history builds at its revision.

The database is only read. What it is compared with is built elsewhere, on an embedded server.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from alembic.script import ScriptDirectory
from rich.console import Group, RenderableType
from rich.text import Text
from sqlalchemy import URL

from migrations import snapshot

from . import reference
from .database import place
from .errors import CannotRunError
from .proof import counted
from .report import coloured, document_of
from .server import Server

REMEDY = (
    "Undo by hand what nobody wanted. What is to stay becomes a revision: undo it too, and deploy"
    " that."
)

_FIELDS = (
    "drift",
    "error",
    "server",
    "compared_on",
    "revision",
    "revision_read",
    "head",
    "behind",
    "unseen",
    "differing",
    "difference",
    "remedy",
)


@dataclass(frozen=True)
class Live:
    """What a live database showed of itself."""

    server: str
    """The server's version, such as 17.6."""
    revision: str | None
    """The revision that it records; None when the role may not read it."""
    unseen: Sequence[str]
    """What the role could not see, and what was done instead: a sentence each."""
    facts: snapshot.Snapshot


@dataclass(frozen=True)
class Drift:
    """What the comparison found."""

    live: Live
    compared_on: str
    """The version of the embedded server."""
    revision: str
    """The revision that the database was compared with."""
    head: str
    behind: int
    """How many revisions the head is further."""
    differing: int
    """How many facts only one side has."""
    difference: str
    """What the history builds ('-') and the database has ('+'); nothing when they are equal."""


def look(target: URL, scripts: ScriptDirectory) -> Live:
    """Read a live database's schema and revision, in one read-only transaction.

    Raises:
        CannotRunError: there is nothing to compare it with, or it cannot be read.

    """
    known = reference.require_line(scripts)
    with reference.read_only(target) as connection:
        server = reference.version(connection)
        recorded = reference.recorded(connection)
        revision = None
        unseen = []
        if recorded.unreadable is not None:
            unseen.append(
                f"The revision could not be read ({recorded.unreadable}): compared with the nearest"
                " one."
            )
        else:
            revision = _only(recorded, known, place(target))
        return Live(server, revision, unseen, snapshot.read(connection, bookkeeping=True))


def compare(live: Live, server: Server, scripts: ScriptDirectory) -> Drift:
    """Compare what a live database showed with what the history builds at its revision.

    Raises:
        CannotRunError: the history does not build.

    """
    known = reference.require_line(scripts)
    history = reference.build(server, scripts, until=live.revision)
    revision = live.revision or reference.nearest(history, live.facts)
    expected = history[revision]
    return Drift(
        live=live,
        compared_on=server.version,
        revision=revision,
        head=known[-1],
        behind=len(known) - 1 - known.index(revision),
        differing=reference.distance(expected, live.facts),
        difference=snapshot.difference(expected, live.facts),
    )


def document(found: Drift) -> str:
    """Lay the comparison out for machines; README.md describes the fields."""
    return document_of(
        _FIELDS,
        drift=bool(found.difference),
        server=found.live.server,
        compared_on=found.compared_on,
        revision=found.revision,
        revision_read=found.live.revision is not None,
        head=found.head,
        behind=found.behind,
        unseen=found.live.unseen,
        differing=found.differing,
        difference=found.difference,
        remedy=REMEDY if found.difference else None,
    )


def refusal(sentence: str) -> str:
    """Say for machines why nothing could be compared."""
    return document_of(_FIELDS, error=sentence, unseen=[])


def page(found: Drift) -> Group:
    """Lay the comparison out for people."""
    at = "at" if found.live.revision else "nearest to"
    where = f"PostgreSQL {found.live.server}, {at} {found.revision}"
    lines: list[RenderableType] = [
        Text(f"{where}; {reference.further(found.head, found.behind)}.", "bold")
    ]
    lines += [Text(f"! {sentence}", "yellow") for sentence in found.live.unseen]
    if not found.difference:
        facts = counted(len(found.live.facts), "fact")
        verdict = f"✓ No drift: {facts}, as the history builds them on PostgreSQL"
        return Group(*lines, Text(f"{verdict} {found.compared_on}.", "bold green"))
    facts = counted(found.differing, "fact")
    verdict = f"✗ Drift: {facts} only in the history (-) or only in the database (+)."
    shown = coloured(found.difference)
    return Group(*lines, Text(verdict, "bold red"), *shown, Text(f"  → {REMEDY}"))


def _only(recorded: reference.Recorded, known: Sequence[str], where: str) -> str:
    """The one revision that is recorded, when the history has it."""
    if not recorded.revisions:
        what = "Alembic's table is empty" if recorded.table else "there is no table alembic_version"
        raise CannotRunError(
            f"The database records no revision, {what} ({where}); if it has the tables, run schema"
            " adopt, otherwise deploy it."
        )
    if len(recorded.revisions) > 1:
        raise CannotRunError(
            f"The database records {len(recorded.revisions)} revisions"
            f" ({', '.join(recorded.revisions)}), but the history is one line ({where}); remove all"
            " but the right one from alembic_version."
        )
    (revision,) = recorded.revisions
    if revision not in known:
        raise CannotRunError(
            f"The database is at revision {revision}, which this checkout does not have ({where});"
            " check out the commit that was deployed there."
        )
    return revision
