"""Trace the statements of a revision from outside: time, locks, rewrites, scans, rows written.

The revision runs unchanged on its own connection. After each statement a second session reads the
locks, and the revision's own session its counters, before the transaction goes on. A string of
several statements is executed one by one. In an autocommit block each statement that can run in a
transaction gets one, so that its locks can be read before they are gone.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, event

from schema.postgres.connection import driver_of
from schema.review.execution import locks
from schema.review.execution.relations import (
    Relations,
    Session,
    Works,
    invalid_indexes,
    read_work,
)
from schema.review.execution.sampler import Sampler, Sessions
from schema.review.execution.statements import (
    can_be_in_transaction,
    is_transaction_control,
    looked_up_table,
    named_tables,
    pieces,
)
from schema.review.result import Lock, Statement, Transaction, is_blocking
from schema.sql_lint.capture import line_in

UNSEEN = "-- statements that did not go through SQLAlchemy"
"""What stands for them on the page: their effects are seen at the end of the transaction."""

_COMMITS = re.compile(r"\bCOMMIT\b|^\s*CALL\b", re.IGNORECASE)
_SUBTRANSACTIONS = re.compile(r"\bEXCEPTION\b", re.IGNORECASE)
"""A block with a handler takes a number of its own, as if it were a transaction."""
_CHANGES = locks.MODES.index("ROW EXCLUSIVE")
_XIDS = "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint"
"""The next transaction's number. Reading it takes none."""


@dataclass
class _Running:
    """A statement that is being executed."""

    sql: str
    line: int
    alone: bool
    """Whether it is outside a transaction block."""
    wrapped: bool = False
    """Whether it was given a transaction of its own."""
    sampler: Sampler | None = None
    transactions: int = 0
    """The number of the next transaction, before it."""
    started: float = 0
    control: bool = False
    """Whether it begins or ends a transaction in an autocommit block."""
    repeats: bool = False
    """Whether the statement before it was the same: a loop is seen as a whole."""


@dataclass
class _Noted:
    """A statement that was executed, the locks that it took, and when it began."""

    statement: Statement
    taken: locks.Modes
    began: float
    """On a clock that stands still while the trace itself works."""


@dataclass
class _Open:
    """A transaction that is being traced."""

    works: Works
    noted: list[_Noted] = field(default_factory=list)
    modes: dict[int, int] = field(default_factory=dict)
    stale: bool = False
    """Whether the last statement has been repeated since its effects were read."""


@dataclass
class _Effects:
    """What has been done since the last reading, on the relations that were there."""

    rewritten: set[int]
    read: set[int]
    written: dict[int, int]
    taken: locks.Modes
    """The locks that are new or stronger."""


class Trace:
    """Traces what one connection executes."""

    def __init__(self, connection: Connection, sessions: Sessions) -> None:
        """Use an idle connection, and two more sessions of the same database."""
        # What a parallel worker reads would be counted elsewhere, and later.
        for name in ("max_parallel_maintenance_workers", "max_parallel_workers_per_gather"):
            driver_of(connection).execute(f"SET SESSION {name} = 0".encode())
        driver_of(connection).commit()
        self._connection = connection
        self._sessions = sessions
        self._watcher: Session = sessions[0]
        self._path = ""
        self._relations: Relations = {}
        self._rows: Mapping[int, int] = {}
        self._found: list[Transaction] = []
        self._open: _Open | None = None
        self._running: _Running | None = None
        self._own_time = 0.0
        self._group = False
        """Whether a string of several statements was given one transaction."""
        self._ended = False
        """Whether the open transaction has been looked at for the last time."""
        self._remade: set[int] = set()
        """The tables that got a new file."""
        self.touched: set[int] = set()
        """The relations on which a lock was taken that allows changes, or that were changed."""

    @contextmanager
    def tracing(
        self, path: str, relations: Relations, rows: Mapping[int, int]
    ) -> Iterator[list[Transaction]]:
        """Trace the one block that runs the revision in that file; its end completes the list.

        `relations` are those before it, `rows` counts the rows of each table, by oid.
        """
        self._path, self._relations, self._rows = path, relations, rows
        before = self._totals()
        events: dict[str, Callable[..., Any]] = {
            "before_cursor_execute": self._before,
            "after_cursor_execute": self._after,
            "commit": self._end,
        }
        for name, listener in events.items():
            event.listen(self._connection, name, listener, retval=name.startswith("before"))
        try:
            yield self._found
        finally:
            for name, listener in events.items():
                event.remove(self._connection, name, listener)
            self._stop()
        self._see_elsewhere(before)

    def _stop(self) -> None:
        """End what an error has left open."""
        if self._running is not None and self._running.sampler is not None:
            self._running.sampler.stop()
        if self._open is not None:
            self._close(self._open, alone=False)

    @property
    def _driver(self) -> psycopg.Connection[Any]:
        return driver_of(self._connection)

    @property
    def failed(self) -> tuple[str, int]:
        """The statement that did not end, and its line; ("", 0) without one."""
        return (self._running.sql, self._running.line) if self._running else ("", 0)

    def _before(self, _connection: object, cursor: Any, sql: str, *rest: Any) -> tuple[str, Any]:  # noqa: ANN401  # the event passes them
        """Execute all statements of a string but the last one, and return that."""
        parameters = rest[0]
        line = line_in(self._path)
        if line is None:  # Alembic's own
            return sql, parameters
        *first, last = [sql] if parameters else pieces(sql)
        if first and self._is_outside() and all(map(can_be_in_transaction, (*first, last))):
            self._driver.execute("BEGIN")  # as PostgreSQL does for such a string
            self._group = True
        for one in first:
            self._running = self._begin(one, line)
            cursor.execute(one, parameters)
            self._finish(self._running)
        self._running = self._begin(last, line)
        return last, parameters

    def _after(self, *_arguments: object) -> None:
        if self._running is not None:
            self._finish(self._running)
            self._running = None
        if self._group:
            self._group = False
            if self._in_transaction():
                self._end()
                self._driver.execute("COMMIT")

    def _is_outside(self) -> bool:
        """Whether no transaction is open, and none begins with the next statement."""
        return self._driver.autocommit and not self._in_transaction()

    def _begin(self, sql: str, line: int) -> _Running:
        started = time.monotonic()
        running = _Running(sql.replace("%%", "%").strip(), line, self._is_outside())
        if self._driver.autocommit and is_transaction_control(running.sql):
            running.control = True
            if not running.alone:
                self._end()
            return running
        if self._open is not None and self._open.noted and not running.alone:
            last = self._open.noted[-1].statement
            running.repeats = (last.sql, last.line) == (running.sql, running.line)
            if running.repeats:
                running.started = started
                return running
            self._refresh(self._open)
        running.wrapped = running.alone and can_be_in_transaction(running.sql)
        if running.wrapped:
            self._driver.execute("BEGIN")
        sampled = running.alone and not running.wrapped
        self._ended = False
        if self._open is None:
            # What earlier transactions did may be counted still, until it is flushed.
            known = sampled or running.wrapped
            self._open = _Open(self._works(running) if known else self._baseline())
        if sampled:
            running.transactions = self._next_transaction()
            named = named_tables(running.sql, self._relations)
            pid = self._driver.info.backend_pid
            running.sampler = Sampler(pid, self._relations, named, self._sessions)
        running.started = time.monotonic()
        self._own_time += running.started - started
        return running

    def _works(self, running: _Running) -> Works:
        """Read the counters where they can be: inside the transaction, or after it."""
        if running.alone and not running.wrapped:
            self._driver.execute("SELECT pg_catalog.pg_stat_force_next_flush()")
            return read_work(self._watcher, self._relations, inside=False)
        return read_work(self._driver, self._relations, inside=True)

    def _baseline(self) -> Works:
        """Return what a transaction begins with: the files that there are, and no work."""
        found = read_work(self._watcher, self._relations, inside=False)
        return {oid: replace(work, read=0, written=0) for oid, work in found.items()}

    def _totals(self) -> Works:
        """Read what all sessions have done to the tables until now."""
        if not self._in_transaction():
            self._driver.execute("SELECT pg_catalog.pg_stat_force_next_flush()")
            self._driver.rollback()
        return read_work(self._watcher, self._relations, inside=False)

    def _next_transaction(self) -> int:
        return int(self._watcher.execute(_XIDS).fetchall()[0][0])

    def _finish(self, running: _Running) -> None:
        """Note what a statement did."""
        ended = time.monotonic()
        opened = self._open or _Open({})
        seconds = ended - running.started
        if running.control:
            return
        if running.repeats:
            last = opened.noted[-1]
            last.statement = replace(
                last.statement,
                times=last.statement.times + 1,
                seconds=last.statement.seconds + seconds,
            )
            opened.stale = True
            return
        modes: locks.Modes = {}
        transactions = 1
        if running.sampler is not None:
            seconds = min(seconds, ended - running.sampler.stop())
            modes = running.sampler.modes
            if _COMMITS.search(running.sql) and not _SUBTRANSACTIONS.search(running.sql):
                transactions = max(1, self._next_transaction() - running.transactions)
        elif self._in_transaction():
            modes = locks.read(self._watcher, self._driver.info.backend_pid, self._relations)
        self._note(opened, running, modes, seconds)
        noted = opened.noted[-1].statement
        most = {name: rows // transactions for name, rows in noted.written.items()}
        opened.noted[-1].statement = replace(noted, transactions=transactions, most=most)
        if running.wrapped and self._in_transaction():
            self._driver.execute("COMMIT")
        if running.alone:
            self._close(opened, alone=True)
        self._own_time += time.monotonic() - ended

    def _in_transaction(self) -> bool:
        return self._driver.info.transaction_status == TransactionStatus.INTRANS

    def _note(self, opened: _Open, running: _Running, modes: locks.Modes, seconds: float) -> None:
        """Note a statement, and what it did."""
        inside = not running.alone or running.wrapped
        done = self._effects(opened, self._works(running), modes)
        table = looked_up_table(running.sql)
        looked_up = {oid for oid, one in self._relations.items() if one.name == table}
        statement = Statement(
            sql=running.sql,
            line=running.line,
            seconds=seconds,
            rewrites=self._names(done.rewritten),
            scans=self._names(done.read | {oid for oid in looked_up if self._rows.get(oid)}),
            written=self._counted(done.written),
            invalid=invalid_indexes(self._driver if inside else self._watcher),
        )
        opened.noted.append(_Noted(statement, done.taken, running.started - self._own_time))

    def _refresh(self, opened: _Open) -> None:
        """Add to the last statement what its repetitions did."""
        if not opened.stale or not self._in_transaction():
            return
        opened.stale = False
        modes = locks.read(self._watcher, self._driver.info.backend_pid, self._relations)
        works = read_work(self._driver, self._relations, inside=True)
        done = self._effects(opened, works, modes)
        last = opened.noted[-1]
        written = Counter(last.statement.written) + Counter(self._counted(done.written))
        last.taken = {**last.taken, **done.taken}
        last.statement = replace(
            last.statement,
            rewrites=tuple(sorted({*last.statement.rewrites, *self._names(done.rewritten)})),
            scans=tuple(sorted({*last.statement.scans, *self._names(done.read)})),
            written=dict(sorted(written.items())),
            most=dict(sorted(written.items())),
        )

    def _effects(self, opened: _Open, works: Works, modes: locks.Modes) -> _Effects:
        """Compare what has been done to the tables with what had been until now."""
        before, opened.works = opened.works, works
        both = [oid for oid in works if oid in before]
        filled = {oid for oid in both if self._rows.get(oid)}
        # A file that is new and empty belongs to a table that was truncated.
        rewritten = {
            oid for oid in filled if works[oid].file != before[oid].file and works[oid].bytes
        }
        read = {
            oid for oid in filled if _is_whole(works[oid].read - before[oid].read, self._rows[oid])
        } - rewritten
        # A refresh counts the rows that it writes into the new file.
        written = {
            oid: works[oid].written - before[oid].written for oid in both if oid not in rewritten
        }
        taken = {oid: mode for oid, mode in modes.items() if mode > opened.modes.get(oid, -1)}
        opened.modes |= taken
        changed = {oid for oid, rows in written.items() if rows} | rewritten
        self._remade |= {oid for oid in both if works[oid].file != before[oid].file}
        self.touched |= {oid for oid, mode in modes.items() if mode >= _CHANGES} | changed
        return _Effects(rewritten, read, written, taken)

    def _counted(self, written: Mapping[int, int]) -> dict[str, int]:
        """Name the tables that were written, with the number of rows."""
        return {
            name: rows
            for name, rows in sorted((self._relations[oid].name, n) for oid, n in written.items())
            if rows
        }

    def _names(self, oids: set[int]) -> tuple[str, ...]:
        return tuple(sorted(self._relations[oid].name for oid in oids))

    def _end(self, _connection: Connection | None = None) -> None:
        """Close the transaction, before its commit."""
        if self._open is None and self._ended:
            return
        started = time.monotonic()
        opened = self._open or _Open(self._baseline())
        self._ended = True
        if self._in_transaction():
            self._refresh(opened)
            self._see_unseen(opened)
        self._own_time += time.monotonic() - started
        self._close(opened, alone=False)

    def _see_unseen(self, opened: _Open) -> None:
        """Note what the driver executed by itself, such as COPY."""
        modes = locks.read(self._watcher, self._driver.info.backend_pid, self._relations)
        works = read_work(self._driver, self._relations, inside=True)
        changed = any(
            (work.file, work.written) != (opened.works[oid].file, opened.works[oid].written)
            or (
                self._rows.get(oid)
                and _is_whole(work.read - opened.works[oid].read, self._rows[oid])
            )
            for oid, work in works.items()
            if oid in opened.works
        )
        if changed or any(
            mode > opened.modes.get(oid, _CHANGES - 1) for oid, mode in modes.items()
        ):
            unseen = _Running(UNSEEN, 0, alone=False, started=time.monotonic())
            self._note(opened, unseen, modes, 0.0)

    def _see_elsewhere(self, before: Works) -> None:
        """Note what was done outside this connection's transactions, by whatever means."""
        after = self._totals()
        noted: Counter[str] = Counter()
        for transaction in self._found:
            for one in transaction.statements:
                noted.update(one.written)
        written = {
            oid: work.written - before[oid].written - noted[self._relations[oid].name]
            for oid, work in after.items()
            if oid in before and oid not in self._remade
        }
        written = {oid: rows for oid, rows in written.items() if rows > 0}
        files = {
            oid
            for oid, work in after.items()
            if oid in before and work.file != before[oid].file and oid not in self.touched
        }
        if written or files:
            self.touched |= files | set(written)
            statement = Statement(
                UNSEEN, 0, 0.0, rewrites=self._names(files), written=self._counted(written)
            )
            self._found.append(Transaction((statement,), alone=True, seconds=0.0))

    def _close(self, opened: _Open, *, alone: bool) -> None:
        """Make a transaction of what was noted; its locks end now."""
        self._open = None
        if not opened.noted:
            return
        ended = time.monotonic() - self._own_time
        began = opened.noted[0].began
        statements = []
        for noted in opened.noted:
            seconds = noted.statement.seconds if alone else ended - noted.began
            statements.append(replace(noted.statement, locks=self._locks(noted.taken, seconds)))
        slowest = max(
            range(len(statements)), key=lambda place: (self._work(statements[place]), place)
        )
        held = {
            lock.relation: lock
            for statement in statements[: slowest + 1]
            for lock in statement.locks
            if is_blocking(lock)
        }
        seconds = statements[0].seconds if alone else ended - began
        if alone and self._is_repeated(statements[0]):
            self._found[-1] = _merged(self._found[-1], statements[0])
            return
        self._found.append(
            Transaction(tuple(statements), alone, seconds, tuple(held.values()), slowest)
        )

    def _is_repeated(self, statement: Statement) -> bool:
        """Whether the same statement ran just before, in a transaction of its own."""
        if not self._found or not self._found[-1].alone:
            return False
        last = self._found[-1].statements[0]
        return (last.sql, last.line) == (statement.sql, statement.line)

    def _work(self, statement: Statement) -> int:
        """Return on how many rows a statement works: that grows with the tables, unlike a time."""
        rows = {self._relations[oid].name: rows for oid, rows in self._rows.items()}
        read = sum(rows[name] for name in (*statement.rewrites, *statement.scans))
        return read + sum(statement.written.values())

    def _locks(self, taken: locks.Modes, seconds: float) -> tuple[Lock, ...]:
        """Describe the locks that a statement took: not readers', not what a table's implies."""
        found = []
        for oid, mode in taken.items():
            one = self._relations[oid]
            implied = one.table is not None and mode <= taken.get(one.table, -1)
            if mode >= _CHANGES and not implied:
                found.append(
                    Lock(
                        one.name,
                        locks.MODES[mode],
                        locks.blocks(mode, one.kind),
                        seconds,
                        self._rows.get(oid, 0),
                    )
                )
        return tuple(sorted(found, key=lambda lock: lock.relation))


def _merged(earlier: Transaction, again: Statement) -> Transaction:
    """Show a loop of transactions as one statement: batches, each with its own commit."""
    (first,) = earlier.statements
    written = Counter(first.written) + Counter(again.written)
    merged = replace(
        first,
        seconds=first.seconds + again.seconds,
        times=first.times + 1,
        transactions=first.transactions + again.transactions,
        most={
            name: max(first.most.get(name, 0), again.written.get(name, 0) // again.transactions)
            for name in written
        },
        written=dict(sorted(written.items())),
        rewrites=tuple(sorted({*first.rewrites, *again.rewrites})),
        scans=tuple(sorted({*first.scans, *again.scans})),
        invalid=again.invalid,
    )
    return replace(earlier, statements=(merged,), seconds=earlier.seconds + again.seconds)


def _is_whole(read: int, rows: int) -> bool:
    """Whether as many rows were read as a table has, but for a few that were deleted before."""
    return read >= rows * 0.9
