"""Run the new revisions on rows: each up, down and up again, traced, its rows compared."""

import ast
import io
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
from alembic.script import Script
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from migrations import snapshot
from migrations.deploy.errors import FailedError
from migrations.deploy.own_transaction import watch_transaction
from schema.postgres.connection import connect, describe_error, driver_of
from schema.review.declarations import declared
from schema.review.execution import relations
from schema.review.execution.contents import Contents
from schema.review.execution.databases import Ground, assume_and_refill, session
from schema.review.execution.masking import mask, mask_names
from schema.review.execution.obstacle import Obstacle, find_obstacle
from schema.review.execution.relations import Relation, Relations, Session
from schema.review.execution.trace import Trace
from schema.review.pull_request import PullRequest
from schema.review.result import Direction, Failure, Reversal, Size, Step, Transaction
from schema.revisions.history import functions, is_irreversible, parse
from schema.revisions.runner import downgrade_step, run, upgrade_step

type Show = Callable[[str], None]

_PATIENCE = "SET lock_timeout = '60s'"
"""A revision may leave a lock behind, on a connection of its own: the review must end."""

_COLUMNS = """
SELECT attrelid, attnum, attname::text FROM pg_catalog.pg_attribute
WHERE attrelid = ANY (%s::oid[]) AND attnum > 0 AND NOT attisdropped
"""
_RAISES = "exec_stmt_raise"
"""Where PostgreSQL executes PL/pgSQL's RAISE: the author of the function wrote that text."""
_BYTES = "SELECT pg_catalog.pg_total_relation_size(%s::oid)"


@dataclass
class Walked:
    """What running the revisions has shown."""

    before: snapshot.Snapshot = ()
    after: snapshot.Snapshot = ()
    steps: list[Step] = field(default_factory=list)
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    """The rows of each table before each revision."""
    reversals: list[Reversal] = field(default_factory=list)
    failure: Failure | None = None
    sizes: list[Size] = field(default_factory=list)
    growth: dict[str, list[Size]] = field(default_factory=dict)
    """The sizes before and after each revision's upgrade."""
    invalid: dict[str, str] = field(default_factory=dict)
    """The revision that leaves an index INVALID, by the index."""
    short: tuple[str, ...] = ()
    """Tables that had too few rows for their size to count, as sentences."""
    discarded: tuple[str, ...] = ()
    """The tables and columns that the revisions add: a downgrade discards what is written there."""
    total: int = 0
    """How many rows there were before all revisions."""


def walk(ground: Ground, pull_request: PullRequest, show: Show) -> Walked:
    """Run the revisions until one fails; the database is at the last one afterwards."""
    with (
        connect(ground.url, autocommit=True) as observer,
        session(ground.url) as watcher,
        session(ground.url) as holder,
        session(ground.url) as keeper,
    ):
        for one in (driver_of(observer), watcher, keeper):
            one.execute(_PATIENCE)
        walking = _Walk(observer, watcher, holder, keeper, ground, pull_request, show)
        walking.all()
        return walking.found


@dataclass
class _Walk:
    observer: Connection
    watcher: Session
    holder: Session
    keeper: Session
    ground: Ground
    pull_request: PullRequest
    show: Show
    found: Walked = field(default_factory=Walked)
    rows: dict[int, int] = field(default_factory=dict)
    touched: set[int] = field(default_factory=set)
    """The tables that may have changed since their contents were kept."""
    failed: tuple[str, int] = ("", 0)

    def __post_init__(self) -> None:
        self.contents = Contents(self.keeper)

    def all(self) -> None:
        """Run every revision, until one cannot be gone on from."""
        self.show("counting rows")
        now = relations.read_relations(self.watcher)
        self._count(now, set(now))
        self.found.total = sum(self.rows.get(one.oid, 0) for one in now.values() if one.kind == "r")
        self.found.before = before = snapshot.read(self.observer)
        sizes = self._sizes(now)
        columns = self._columns(now)
        for revision in self.pull_request.new:
            if not self._revision(revision, before):
                break
            before = self.found.after
        self.found.after = snapshot.read(self.observer)
        left = relations.invalid_indexes(self.watcher)
        self.found.invalid = {name: of for name, of in self.found.invalid.items() if name in left}
        now = relations.read_relations(self.watcher)
        self.found.sizes = _compared(sizes, self._sizes(now))
        added = self._columns(now).items()
        self.found.discarded = tuple(
            sorted(
                {_added(now[one[0]], name, columns) for one, name in added if one not in columns}
            )
        )

    def _columns(self, now: Relations) -> dict[tuple[int, int], str]:
        """Return the columns of the tables, by oid and number: a rename changes neither."""
        found = self.watcher.execute(_COLUMNS, [[one.oid for one in _tables(now)]])
        return {(oid, number): name for oid, number, name in found}

    def _revision(self, revision: Script, before: snapshot.Snapshot) -> bool:
        """Run one revision up, down and up; return whether the next one can follow."""
        now = relations.read_relations(self.watcher)
        if self.ground.generated and declared(revision, "assumes"):
            counted = {now[oid].name: rows for oid, rows in self.rows.items() if oid in now}
            self.found.short += assume_and_refill(self.ground.url, revision, counted)
            self.touched |= set(now)
        tables = [one for one in now.values() if one.kind == "r"]
        self.contents.keep(tables, self.touched)
        self._count(now, self.touched)
        self.touched = set()
        sizes = self._sizes(now)
        self.found.rows[revision.revision] = {
            one.name: self.rows[one.oid] for one in now.values() if one.oid in self.rows
        }
        if not self._step(revision, "upgrade", now):
            return False
        later = relations.read_relations(self.watcher)
        self._count(later, self.touched)
        self.found.growth[revision.revision] = _compared(sizes, self._sizes(later))
        self.found.after = snapshot.read(self.observer)
        if is_irreversible(revision):
            self._irreversible(revision, later)
            return True
        return self._reverse(revision, before, later)

    def _irreversible(self, revision: Script, now: Relations) -> None:
        lost = self.contents.lost(_tables(now), self.touched)
        self.found.reversals.append(
            Reversal(
                revision.revision,
                "irreversible",
                reason=_reason(revision),
                lost=lost,
                declared=declared(revision, "loses"),
                compared=self.contents.count(),
            )
        )

    def _reverse(self, revision: Script, before: snapshot.Snapshot, upgraded: Relations) -> bool:
        """Downgrade, compare, and upgrade again."""
        if not self._step(revision, "downgrade", upgraded):
            self.found.reversals.append(
                Reversal(
                    revision.revision,
                    "inexact",
                    reason=f"the downgrade fails: {self._forgiven()}",
                    lost=self.contents.lost(_tables(upgraded), self.touched),
                    declared=declared(revision, "loses"),
                )
            )
            return snapshot.read(self.observer) == self.found.after
        restored = snapshot.read(self.observer)
        now = relations.read_relations(self.watcher)
        lost = self.contents.lost(_tables(now), self.touched)
        difference = snapshot.difference(before, restored) if restored != before else ""
        reason = ""
        steps = len(self.found.steps)
        self._count(now, self.touched)
        again = self._step(revision, "upgrade", now)
        del self.found.steps[steps:]  # the first upgrade is the one that is shown
        if not again:
            reason = f"it cannot be applied again: {self._forgiven()}"
        elif snapshot.read(self.observer) != self.found.after:
            reason = "applied again, it builds another schema"
        self.found.reversals.append(
            Reversal(
                revision.revision,
                "inexact" if difference or reason else "exact",
                difference,
                reason,
                lost,
                declared(revision, "loses"),
                self.contents.count(),
            )
        )
        return again

    def _forgiven(self) -> str:
        """Return the error of a step whose failure ends nothing."""
        failure, self.found.failure = self.found.failure, None
        return failure.error if failure else ""

    def _step(self, revision: Script, direction: Direction, now: Relations) -> bool:
        """Run an upgrade or a downgrade, traced; note the failure if it fails."""
        self.show(f"{direction} {revision.revision}")
        make = upgrade_step if direction == "upgrade" else downgrade_step
        step = make(self.pull_request.scripts, revision)
        started = time.monotonic()
        error: Exception | SystemExit | None = None
        invalid = relations.invalid_indexes(self.watcher)
        with connect(self.ground.url) as connection:  # a session of its own, as in a deploy
            driver_of(connection).execute(_PATIENCE)
            driver_of(connection).commit()
            trace = Trace(connection, (self.watcher, self.holder))
            with (
                watch_transaction(connection) as own,  # what a deploy refuses fails here
                trace.tracing(revision.path, now, self.rows) as transactions,
                _quiet(),
            ):
                own.begin()
                try:
                    run(connection, self.pull_request.scripts, lambda _context: [step])
                except (Exception, SystemExit) as raised:  # noqa: BLE001  # whatever it likes
                    error = raised
                    connection.rollback()
                own.end()
        self.touched |= trace.touched
        self.failed = trace.failed
        for name in set(relations.invalid_indexes(self.watcher)) - set(invalid):
            self.found.invalid.setdefault(name, revision.revision)
        seconds = sum(one.seconds for one in transactions) or time.monotonic() - started
        if not self.ground.generated:
            known = self._known(revision)
            transactions[:] = [_masked(one, known) for one in transactions]
        self.found.steps.append(Step(revision.revision, direction, tuple(transactions), seconds))
        if error is not None:
            self.found.failure = self._failure(revision, direction, error)
        return error is None

    def _failure(
        self, revision: Script, direction: Direction, error: Exception | SystemExit
    ) -> Failure:
        sql, line = self.failed
        if not self.ground.generated:
            sql = mask(sql, self._known(revision))
        obstacle = Obstacle("", None, "")
        if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.Error):
            obstacle = find_obstacle(self.keeper, sql, error.orig)
        return Failure(
            revision.revision,
            direction,
            line,
            sql,
            self._described(error, revision),
            obstacle.constraint,
            obstacle.rows,
            obstacle.example if self.ground.generated else "",
        )

    def _described(self, error: Exception | SystemExit, revision: Script) -> str:
        """Describe an error; on rows that were given, without a text that may quote them."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, FailedError):
            return str(cause)
        if self.ground.generated:
            return describe_error(error)
        if not isinstance(cause, psycopg.Error) or cause.diag.source_function == _RAISES:
            return f"{type(cause).__name__}, whose text may quote a row"
        return mask_names(describe_error(error), self._known(revision))

    def _known(self, revision: Script) -> str:
        """Return the texts that hold no value of a row: the revision's, and the schema's."""
        source = Path(revision.path).read_text(encoding="utf-8")
        return source + snapshot.layout(self.found.before, None)

    def _count(self, now: Relations, touched: set[int]) -> None:
        """Count the rows of tables that are new or may have changed."""
        self.rows = {oid: rows for oid, rows in self.rows.items() if oid in now}
        chosen = {oid: one for oid, one in now.items() if oid in touched or oid not in self.rows}
        self.rows |= relations.count_rows(self.watcher, chosen)

    def _sizes(self, now: Relations) -> dict[str, tuple[int, int]]:
        """Return rows and bytes of the tables, by name."""
        return {
            one.name: (
                self.rows.get(one.oid, 0),
                self.watcher.execute(_BYTES, [one.oid]).fetchall()[0][0],
            )
            for one in now.values()
            if one.kind in "rm"
        }


def _added(table: Relation, column: str, before: dict[tuple[int, int], str]) -> str:
    """Name a new table, or a new column of one that was there."""
    known = any(oid == table.oid for oid, _ in before)
    return f"{table.name}.{column}" if known else table.name


def _masked(transaction: Transaction, known: str) -> Transaction:
    statements = tuple(replace(one, sql=mask(one.sql, known)) for one in transaction.statements)
    return replace(transaction, statements=statements)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what a revision prints from the page, which may go to standard output."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _tables(now: Relations) -> list[Relation]:
    return [one for one in now.values() if one.kind == "r"]


def _compared(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[Size]:
    missing = (None, None)
    return [
        Size(
            name,
            before.get(name, missing)[0],
            after.get(name, missing)[0],
            before.get(name, missing)[1],
            after.get(name, missing)[1],
        )
        for name in sorted({*before, *after})
    ]


def _reason(revision: Script) -> str:
    """Return the text with which a downgrade raises."""
    function = functions(parse(Path(revision.path))).get("downgrade")
    for node in ast.walk(function) if function else ():
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            texts = [one.value for one in node.exc.args if isinstance(one, ast.Constant)]
            return str(texts[0]) if texts else ""
    return ""
