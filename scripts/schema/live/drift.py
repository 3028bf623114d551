"""`schema drift`: whether a live database still is what the history builds at its revision.

The database is only read. What it is compared with is built elsewhere, on an embedded server.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from alembic.script import ScriptDirectory
from rich.console import Group, RenderableType
from rich.text import Text
from schema.text import pluralize
from sqlalchemy import URL

from migrations import snapshot
from schema.cli.output import coloured, document_of
from schema.errors import CannotRunError
from schema.live import comparison, history_schemas, read
from schema.live.comparison import Comparison
from schema.live.read import Live
from schema.postgres.scratch import Server

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
    "equals",
    "nearest",
    "unverified",
    "differing",
    "difference",
    "remedy",
)


@dataclass(frozen=True)
class Drift:
    """What the comparison found."""

    live: Live
    compared_on: str
    """The version of the embedded server."""
    found: Comparison

    @property
    def unseen(self) -> list[str]:
        """What the role could not see, and what was done instead: a sentence each."""
        if self.live.recorded.unreadable is None:
            return []
        return [
            f"The revision could not be read ({self.live.recorded.unreadable}): compared with the"
            " nearest one."
        ]


def look(target: URL, scripts: ScriptDirectory) -> Live:
    """Read a live database's schema and revision, in read-only transactions.

    Raises:
        CannotRunError: there is nothing to compare it with, or it cannot be read.

    """
    history_schemas.require_linear_history(scripts)
    live = read.read_twice(target, read.look)
    if live.recorded.unreadable is None and not live.recorded.revisions:
        table = live.recorded.table
        what = "Alembic's table is empty" if table else "there is no table alembic_version"
        raise CannotRunError(
            f"The database records no revision, {what} ({live.where}); if it has the tables, run"
            " schema adopt, otherwise deploy it."
        )
    return live


def compare(live: Live, server: Server, history: Mapping[str, snapshot.Snapshot]) -> Drift:
    """Compare what a live database showed with the history that was built on that server.

    Raises:
        CannotRunError: the database records several revisions, or one that the history lacks.

    """
    found = comparison.compare(live, history)
    if live.recorded.unreadable is None and found.revision is None:
        raise CannotRunError(
            f"{comparison.statement(found)} ({live.where}); {comparison.advice(found)}."
        )
    return Drift(live, server.version, found)


def document(drift: Drift) -> str:
    """Lay the comparison out for machines; README.md describes the fields."""
    found = drift.found
    return document_of(
        _FIELDS,
        drift=found.drifted,
        server=drift.live.server,
        compared_on=drift.compared_on,
        revision=found.revision or found.nearest,
        revision_read=found.revision is not None,
        head=found.head,
        behind=found.behind,
        unseen=drift.unseen,
        equals=found.equals,
        nearest=found.nearest,
        unverified=found.unverified,
        differing=found.differing,
        difference=found.difference,
        remedy=comparison.remedy(found),
    )


def refusal(sentence: str) -> str:
    """Say for machines why nothing could be compared."""
    return document_of(_FIELDS, error=sentence, unseen=[], unverified=[])


def page(drift: Drift) -> Group:
    """Lay the comparison out for people."""
    found = drift.found
    at = "at" if found.revision else "nearest to"
    where = f"PostgreSQL {drift.live.server}, {at} {found.revision or found.nearest}"
    lines: list[RenderableType] = []
    if found.misplaced:
        lines.append(Text(f"✗ {comparison.statement(found)}.", "bold red"))
    lines.append(
        Text(f"{where}; {history_schemas.describe_distance(found.head, found.behind)}.", "bold")
    )
    lines += [Text(f"! {sentence}", "yellow") for sentence in drift.unseen]
    if not found.drifted:
        facts = pluralize(len(drift.live.facts), "fact")
        verdict = f"✓ No drift: {facts}, as the history builds them on PostgreSQL"
        return Group(*lines, Text(f"{verdict} {drift.compared_on}.", "bold green"))
    if found.difference:
        facts = pluralize(found.differing, "fact")
        history = f"the history at {found.nearest}" if found.misplaced else "the history"
        verdict = f"✗ Drift: {facts} only in {history} (-) or only in the database (+)."
        lines += [Text(verdict, "bold red"), *coloured(found.difference)]
    return Group(*lines, Text(f"  → {comparison.remedy(found)}"))
