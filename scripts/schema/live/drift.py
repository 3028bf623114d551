"""`schema drift`: compare a live database with the history at its revision.

The database is only read. If it differs, the history is built on an embedded server, and the SQL
that undoes each difference is tried there.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection

from migrations import snapshot
from migrations.snapshot import fingerprints, ignored
from schema.errors import CannotRunError
from schema.live import (
    comparison,
    differences,
    history_schemas,
    logins,
    platform,
    read,
    trial,
)
from schema.live.comparison import Comparison
from schema.live.difference import Difference, Severity
from schema.live.read import Live
from schema.project import config


@dataclass(frozen=True)
class Drift:
    """The result of `examine`."""

    live: Live
    found: Comparison
    differences: Sequence[Difference]
    """In what the history owns, and in who may read its rows; the worst first."""
    notes: Sequence[Difference]
    """What else is worth knowing; it is no drift."""
    foreign: Sequence[str]
    """Objects that no revision has, without those on the ignore list."""
    script: str = ""
    """SQL that undoes the differences; '' if there is none."""
    text: str = ""
    """Facts of the history ('-') and of the database ('+')."""
    compared_on: str | None = None
    """The version of the embedded server; None if the fingerprints were enough."""

    @property
    def drifted(self) -> bool:
        """Whether anything differs that the history owns."""
        return self.found.drifted or bool(self.differences)

    @property
    def limitations(self) -> list[str]:
        """One sentence per thing that the role could not read."""
        if self.live.recorded.unreadable is None:
            return []
        return [
            f"The revision could not be read ({self.live.recorded.unreadable}); the schema was"
            " compared with the nearest one."
        ]


def examine(target: URL, scripts: ScriptDirectory, progress: Callable[[str], None]) -> Drift:
    """Compare a live database with the history, in read-only transactions.

    Raises:
        CannotRunError: it cannot be read, it records no revision or one that the history lacks, or
            the history is not linear.

    """
    history = history_schemas.committed(scripts)
    owned = fingerprints.owned(history)
    live, judged = read_judged(target, owned)
    _require_revision(live, owned)
    found = comparison.compare(live, history)
    if live.recorded.unreadable is None and found.revision is None:
        raise CannotRunError(
            f"{comparison.sentence(found)} ({live.where}); {comparison.advice(found)}."
        )
    alarming = differences.alarming(live.facts, found.objects.foreign)
    foreign = [one for one in not_ignored(found) if one not in alarming]
    judged = [one for one in judged if not _is_the_historys(one, found, owned)]
    beside = [one for one in judged if one.severity == Severity.ISOLATION]
    drift = Drift(
        live,
        found,
        beside,
        [one for one in judged if one.severity != Severity.ISOLATION],
        foreign,
    )
    if not found.objects.differing and not alarming:
        return drift
    with (
        history_schemas.open_closest_server(live, progress) as server,
        history_schemas.at_revision(server, scripts, found.nearest) as copy,
    ):
        progress("the SQL")
        compared = {*owned, *alarming}
        repair = trial.try_repair(copy, live, compared)
    return replace(
        drift,
        differences=differences.ordered([*repair.differences, *_new(beside, repair.differences)]),
        foreign=[one for one in foreign if one not in repair.renamed],
        script=repair.script,
        text=snapshot.difference(
            differences.facts_of(copy.schema, compared),
            differences.facts_of(live.facts, compared),
        ),
        compared_on=server.version,
    )


def read_judged(target: URL, owned: Collection[str]) -> tuple[Live, list[Difference]]:
    """Read a live schema, and judge what stands beside it: logins, the platform's objects.

    Raises:
        CannotRunError: it cannot be read.

    """

    def query(connection: Connection) -> tuple[Live, list[Difference]]:
        judged = [*logins.judge(connection), *platform.judge(connection, owned)]
        return read.read_live(connection), judged

    return read.read_twice(target, query)


def _is_the_historys(judged: Difference, found: Comparison, owned: Collection[str]) -> bool:
    """Whether a revision made the grant: its object is as the history builds it."""
    is_grant = judged.part.startswith("grant ")
    return is_grant and judged.object in owned and judged.object not in found.objects.differing


def _new(judged: Iterable[Difference], known: Iterable[Difference]) -> list[Difference]:
    """Return what the comparison with the history has not found already."""
    places = {(one.object, one.part) for one in known}
    return [one for one in judged if (one.object, one.part) not in places]


def not_ignored(found: Comparison) -> list[str]:
    """Return the objects that no revision has, without those on the ignore list in alembic.ini."""
    return ignored.not_ignored(found.objects.foreign, ignored.patterns(config()))


def _require_revision(live: Live, owned: Collection[str]) -> None:
    if live.recorded.unreadable is not None or live.recorded.revisions:
        return
    what = (
        "Alembic's table is empty" if live.recorded.table else "there is no table alembic_version"
    )
    tables = {fact.object for fact in live.facts if fact.object.startswith("table ")} & {*owned}
    todo = "run schema adopt" if tables - {read.VERSION_TABLE} else "deploy it"
    raise CannotRunError(f"The database records no revision: {what} ({live.where}); {todo}.")
