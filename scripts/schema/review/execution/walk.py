"""Run the new revisions on rows: each up, down and up again, traced, its rows compared."""

import ast
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from alembic.script import Script
from psycopg.errors import RaiseException
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from migrations import snapshot
from migrations.deploy.errors import FailedError
from migrations.deploy.own_transaction import watch_transaction
from schema.postgres.connection import connect, describe_error
from schema.review.execution import relations
from schema.review.execution.contents import Contents
from schema.review.execution.databases import Ground, assume, session
from schema.review.execution.obstacle import Obstacle, find_obstacle
from schema.review.execution.relations import Relation, Relations, Session
from schema.review.execution.trace import Trace
from schema.review.pull_request import PullRequest
from schema.review.result import Direction, Failure, Reversal, Size, Step
from schema.revisions.history import functions, is_irreversible, parse
from schema.revisions.runner import downgrade_step, run, upgrade_step

type Show = Callable[[str], None]

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
    total: int = 0
    """How many rows there were before all revisions."""


def walk(ground: Ground, pull_request: PullRequest, show: Show) -> Walked:
    """Run the revisions until one fails; the database is at the last one afterwards."""
    with (
        connect(ground.url) as connection,
        connect(ground.url, autocommit=True) as observer,
        session(ground.url) as watcher,
        session(ground.url) as holder,
        session(ground.url) as keeper,
    ):
        walking = _Walk(
            connection,
            observer,
            watcher,
            keeper,
            Trace(connection, (watcher, holder)),
            ground,
            pull_request,
            show,
        )
        walking.all()
        return walking.found


@dataclass
class _Walk:
    connection: Connection
    observer: Connection
    watcher: Session
    keeper: Session
    trace: Trace
    ground: Ground
    pull_request: PullRequest
    show: Show
    found: Walked = field(default_factory=Walked)
    rows: dict[int, int] = field(default_factory=dict)

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
        for revision in self.pull_request.new:
            if not self._revision(revision, before):
                break
            before = self.found.after
        self.found.after = snapshot.read(self.observer)
        left = relations.invalid_indexes(self.watcher)
        self.found.invalid = {name: of for name, of in self.found.invalid.items() if name in left}
        now = relations.read_relations(self.watcher)
        self.found.sizes = _compared(sizes, self._sizes(now))

    def _revision(self, revision: Script, before: snapshot.Snapshot) -> bool:
        """Run one revision up, down and up; return whether the next one can follow."""
        now = relations.read_relations(self.watcher)
        if self.ground.generated and getattr(revision.module, "assumes", None):
            assume(self.keeper, revision)
            self.trace.touched |= set(now)
        tables = [one for one in now.values() if one.kind == "r"]
        self.contents.keep(tables, self.trace.touched)
        self._count(now, self.trace.touched)
        self.trace.touched = set()
        sizes = self._sizes(now)
        self.found.rows[revision.revision] = {
            one.name: self.rows[one.oid] for one in now.values() if one.oid in self.rows
        }
        if not self._step(revision, "upgrade", now):
            return False
        later = relations.read_relations(self.watcher)
        self._count(later, self.trace.touched)
        self.found.growth[revision.revision] = _compared(sizes, self._sizes(later))
        self.found.after = snapshot.read(self.observer)
        if is_irreversible(revision):
            self._irreversible(revision, later)
            return True
        return self._reverse(revision, before, later)

    def _irreversible(self, revision: Script, now: Relations) -> None:
        lost = self.contents.lost(_tables(now), self.trace.touched)
        self.found.reversals.append(
            Reversal(
                revision.revision,
                "irreversible",
                reason=_reason(revision),
                lost=lost,
                declared=_declared(revision),
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
                    lost=self.contents.lost(_tables(upgraded), self.trace.touched),
                    declared=_declared(revision),
                )
            )
            return snapshot.read(self.observer) == self.found.after
        restored = snapshot.read(self.observer)
        now = relations.read_relations(self.watcher)
        lost = self.contents.lost(_tables(now), self.trace.touched)
        difference = snapshot.difference(before, restored) if restored != before else ""
        reason = ""
        steps = len(self.found.steps)
        self._count(now, self.trace.touched)
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
                _declared(revision),
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
        error: Exception | None = None
        invalid = relations.invalid_indexes(self.watcher)
        with (
            watch_transaction(self.connection) as own,  # what a deploy refuses fails here
            self.trace.tracing(revision.path, now, self.rows) as transactions,
        ):
            own.begin()
            try:
                run(self.connection, self.pull_request.scripts, lambda _context: [step])
            except Exception as raised:  # noqa: BLE001  # a revision may raise whatever it likes
                error = raised
                self.connection.rollback()
            own.end()
        for name in set(relations.invalid_indexes(self.watcher)) - set(invalid):
            self.found.invalid.setdefault(name, revision.revision)
        seconds = sum(one.seconds for one in transactions) or time.monotonic() - started
        self.found.steps.append(Step(revision.revision, direction, tuple(transactions), seconds))
        if error is not None:
            self.found.failure = self._failure(revision, direction, error)
        return error is None

    def _failure(self, revision: Script, direction: Direction, error: Exception) -> Failure:
        sql, line = self.trace.failed
        obstacle = Obstacle("", None, "")
        if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.Error):
            obstacle = find_obstacle(self.keeper, sql, error.orig)
        return Failure(
            revision.revision,
            direction,
            line,
            sql,
            self._described(error),
            obstacle.constraint,
            obstacle.rows,
            obstacle.example if self.ground.generated else "",
        )

    def _described(self, error: Exception) -> str:
        """Describe an error; on rows that were given, without a text that may quote them."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, FailedError):
            return str(cause)
        written = not isinstance(cause, psycopg.Error) or isinstance(cause, RaiseException)
        if written and not self.ground.generated:
            return f"{type(cause).__name__}, whose text may quote a row"
        return describe_error(error)

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


def _declared(revision: Script) -> dict[str, str]:
    """Return the reasons for what a revision says that it loses."""
    found = getattr(revision.module, "loses", {})
    return (
        {str(name): str(reason) for name, reason in found.items()}
        if isinstance(found, dict)
        else {}
    )


def _reason(revision: Script) -> str:
    """Return the text with which a downgrade raises."""
    function = functions(parse(Path(revision.path))).get("downgrade")
    for node in ast.walk(function) if function else ():
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            texts = [one.value for one in node.exc.args if isinstance(one, ast.Constant)]
            return str(texts[0]) if texts else ""
    return ""
