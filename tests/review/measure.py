"""Measure the labels of the corpus on a real server: `python -m tests.review.measure`.

It knows nothing of the review. Each migration runs in a database of its own; a second session reads
the locks after each statement. Nothing depends on how long something takes.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from sqlalchemy import URL
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from schema.postgres.installation import VERSIONS
from schema.postgres.scratch import open_server
from tests.review import access
from tests.review.ground import Ground, Relation, Session, content, prepared, session
from tests.review.labels import LABELS, Labels, Migration, Transaction, migrations

MODES = [
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
]
"""The modes of locks, from the weakest to the strongest."""
ROW_EXCLUSIVE, SHARE, ACCESS_EXCLUSIVE = (
    MODES.index(mode) for mode in ("ROW EXCLUSIVE", "SHARE", "ACCESS EXCLUSIVE")
)
BLOCKERS = ("EXCLUSIVE", "ROW EXCLUSIVE", "ACCESS SHARE")
"""Locks that make a statement wait: for its first lock, for writers to end, for readers to end."""
GIVE_UP = 60
"""Seconds after which a statement that neither waits nor ends is an error."""

_NO_TRANSACTION = re.compile(r"VACUUM|(?!REFRESH).*\bCONCURRENTLY\b", re.DOTALL)
_COUNTERS = {
    True: """
SELECT o, pg_stat_get_xact_tuples_returned(o),
  pg_stat_get_xact_tuples_inserted(o) + pg_stat_get_xact_tuples_updated(o)
  + pg_stat_get_xact_tuples_deleted(o)
FROM unnest(%s::oid[]) AS o
""",
    False: """
SELECT o, pg_stat_get_tuples_returned(o),
  pg_stat_get_tuples_inserted(o) + pg_stat_get_tuples_updated(o) + pg_stat_get_tuples_deleted(o)
FROM unnest(%s::oid[]) AS o
""",
}
"""Rows read in sequence and rows written, inside a transaction and outside."""
_INVALID = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"

type Locks = dict[int, int]
"""The strongest mode, as an index of MODES, by relation."""
type Counters = dict[int, tuple[int, int]]


@dataclass
class Work:
    """What one statement did in proportion to rows, on big tables."""

    rewritten: set[int]
    read: set[int]
    """Read from end to end."""
    written: dict[int, int]
    """How many rows were written."""

    def heavy(self, ground: Ground) -> bool:
        """Whether it was in proportion to the rows of a big table."""
        whole = any(rows >= ground.contents[oid].rows for oid, rows in self.written.items())
        return bool(self.rewritten or self.read or whole)


@dataclass
class Run:
    """A migration that is being measured."""

    ground: Ground
    worker: Session
    watcher: Session
    strongest: Locks = field(default_factory=dict)
    rewritten: set[int] = field(default_factory=set)
    scanned: set[int] = field(default_factory=set)
    written: set[int] = field(default_factory=set)
    held: set[int] = field(default_factory=set)
    several: set[int] = field(default_factory=set)

    def transaction(self, transaction: Transaction) -> None:
        """Run one transaction, and measure each of its statements before the commit."""
        self.worker.execute("BEGIN")
        earlier: set[int] = set()
        written: dict[int, int] = {}
        for statement in transaction.statements:
            work = self._execute(statement, inside=True)
            locks = self._locks()
            self.see(locks)
            blocking = {oid for oid, mode in locks.items() if self._blocks(oid, mode)}
            self.scanned |= (work.read - work.rewritten) & blocking
            if blocking - earlier:
                self.several |= earlier
            if work.heavy(self.ground):
                self.held |= earlier
            for oid, rows in work.written.items():
                written[oid] = written.get(oid, 0) + rows
            earlier = blocking
        self.worker.execute("COMMIT")
        self._see_written(written)

    def outside(self, statement: str) -> None:
        """Run a statement that no transaction may contain; `probe` sees its locks."""
        work = self._execute(statement, inside=False)
        self._see_written(work.written)

    def _execute(self, statement: str, *, inside: bool) -> Work:
        files, counters = self._files(), self._counters(inside=inside)
        self.worker.execute(statement.encode())
        later = self._counters(inside=inside)
        deltas = {
            oid: (later[oid][0] - read, later[oid][1] - written)
            for oid, (read, written) in counters.items()
            if self.ground.big(oid)
        }
        # A file that is new and empty belongs to a table that was truncated.
        rewritten = {
            oid
            for oid, (file, size) in self._files().items()
            if file != files[oid][0] and size and self.ground.big(oid)
        }
        self.rewritten |= rewritten
        rows = self.ground.contents
        read = {oid for oid, (read, _) in deltas.items() if read >= rows[oid].rows}
        # A refresh counts the rows that it writes into the new file.
        written = {oid: rows for oid, (_, rows) in deltas.items() if oid not in rewritten}
        return Work(rewritten, read, written)

    def _files(self) -> dict[int, tuple[int, int]]:
        """Return file and size of the tables that still exist."""
        found = self.worker.execute(
            "SELECT oid, pg_relation_filenode(oid), pg_relation_size(oid) FROM pg_class"
            " WHERE oid = ANY (%s::oid[])",
            [list(self.ground.contents)],
        )
        return {oid: (file, size) for oid, file, size in found}

    def _counters(self, *, inside: bool) -> Counters:
        if not inside:
            self.worker.execute("SELECT pg_stat_force_next_flush()")
        found = self.worker.execute(_COUNTERS[inside].encode(), [list(self.ground.contents)])
        return {oid: (read, written) for oid, read, written in found}

    def _locks(self) -> Locks:
        return locks_of(self.watcher, self.worker.info.backend_pid, self.ground)

    def see(self, locks: Locks) -> None:
        """Note the strongest locks."""
        for oid, mode in locks.items():
            self.strongest[oid] = max(mode, self.strongest.get(oid, 0))

    def _see_written(self, written: dict[int, int]) -> None:
        rows = self.ground.contents
        self.written |= {oid for oid, count in written.items() if count >= rows[oid].rows}

    def _blocks(self, oid: int, mode: int) -> bool:
        """Whether a lock on a table or view keeps out those who use it."""
        kind = self.ground.relations[oid].kind
        if kind in "mv":  # nobody writes to them
            return mode == ACCESS_EXCLUSIVE
        return kind in "rp" and mode >= SHARE

    def labels(self) -> Labels:
        """Return what was seen."""
        found = {
            "locks": self._lock_labels(),
            "rewrites": self._names(self.rewritten),
            "scans": self._names(self.scanned),
            "writes": self._names(self.written),
            "held": self._names(self.held),
            "several": self._names(self.several),
            "loses": frozenset(self._losses()),
            "access": access.changes(
                self.watcher, self.ground.access, sorted(self.ground.relations)
            ),
            "breaks": frozenset({"yes"} if access.broken(self.watcher) else ()),
        }
        return {label: values for label, values in found.items() if values}

    def _names(self, oids: set[int]) -> frozenset[str]:
        return frozenset(self.ground.relations[oid].name for oid in oids)

    def _lock_labels(self) -> frozenset[str]:
        found = set()
        for oid, mode in self.strongest.items():
            relation = self.ground.relations[oid]
            table = self.strongest.get(relation.table, -1) if relation.table else -1
            if mode >= ROW_EXCLUSIVE and mode > table:
                found.add(f"{relation.name} {MODES[mode]}")
        return frozenset(found)

    def _losses(self) -> Iterator[str]:
        """Yield the tables, rows and columns that are gone."""
        still = {oid for (oid,) in self.watcher.execute("SELECT oid FROM pg_class").fetchall()}
        for oid, before in self.ground.contents.items():
            name = self.ground.relations[oid].name
            if oid not in still:
                yield name
            elif self.strongest.get(oid, 0) >= ROW_EXCLUSIVE:
                after = content(self.watcher, oid)
                if after.rows < before.rows:
                    yield f"{name} rows"
                    continue
                for number, (column, values) in before.columns.items():
                    if number not in after.columns or after.columns[number][1] < values:
                        yield f"{name}.{column}"


def locks_of(watcher: Session, pid: int, ground: Ground) -> Locks:
    """Return the locks that a session holds or waits for on relations that existed before."""
    found: Locks = {}
    for oid, mode in watcher.execute(
        "SELECT l.relation, l.mode FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database"
        " WHERE l.pid = %s AND d.datname = current_database() AND l.locktype = 'relation'",
        [pid],
    ).fetchall():
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", mode.removesuffix("Lock")).upper()
        if oid in ground.relations:
            found[oid] = max(MODES.index(words), found.get(oid, 0))
    return found


def measure(migration: Migration, ground: Ground) -> Labels:
    """Run a migration, and return its labels as measured; all but `reversible`."""
    with (
        ground.server.database(ground.full) as url,
        session(url) as worker,
        session(url) as watcher,
    ):
        run = Run(ground, worker, watcher)
        try:
            for transaction in migration.transactions:
                if _outside(transaction):
                    run.outside(transaction.statements[0])
                else:
                    run.transaction(transaction)
        except psycopg.Error:
            left = watcher.execute(_INVALID).fetchall()[0][0]
            failed = {"fails": frozenset({"yes"})}
            return failed | ({"invalid": frozenset({"left"})} if left else {})
        invalid = {"left"} if watcher.execute(_INVALID).fetchall()[0][0] else set()
        for number, transaction in enumerate(migration.transactions):
            if _outside(transaction):
                invalid |= _probe_all(migration, number, run)
        # An index that the migration leaves invalid says more than one that it may leave.
        found = {"left"} if "left" in invalid else invalid
        return run.labels() | ({"invalid": frozenset(found)} if found else {})


def _outside(transaction: Transaction) -> bool:
    """Whether a statement cannot run in a transaction."""
    return transaction.alone and _NO_TRANSACTION.match(transaction.statements[0]) is not None


def _probe_all(migration: Migration, number: int, run: Run) -> set[str]:
    """Stop one statement at each lock that it may wait for; its value of `invalid`."""
    statement = migration.transactions[number].statements[0]
    words = set(re.findall(r"\w+", statement))
    relations = run.ground.relations
    named = [one for one in relations.values() if one.name in words]
    tables = {one.table or one.oid for one in named}
    before = migration.transactions[:number]
    invalid = False
    for oid in sorted(tables):
        for mode in BLOCKERS:
            with _bare(run.ground, before) as url:
                locks, left = _probe(url, statement, relations[oid], mode, run.ground)
                run.see(locks)
                invalid = invalid or left
    return {"if cancelled"} if invalid else set()


@contextmanager
def _bare(ground: Ground, before: tuple[Transaction, ...]) -> Iterator[URL]:
    """Make a database without rows, as the earlier transactions leave it."""
    with ground.server.database(ground.bare) as url:
        with session(url) as opened:
            for transaction in before:
                for statement in transaction.statements:
                    opened.execute(statement.encode())
        yield url


def _probe(
    url: URL, statement: str, relation: Relation, mode: str, ground: Ground
) -> tuple[Locks, bool]:
    """Run a statement while another session holds a lock, and cancel it when it waits.

    Returns the locks that it held or waited for then, and whether it left an INVALID index that was
    not there before.
    """
    with session(url) as blocker, session(url) as worker, session(url) as watcher:
        earlier = watcher.execute(_INVALID).fetchall()
        blocker.execute("BEGIN")
        blocker.execute(f"LOCK TABLE {relation.name} IN {mode} MODE".encode())
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(worker.execute, statement.encode())
            pid = worker.info.backend_pid
            polling = Retrying(
                retry=retry_if_result(lambda state: state is None),
                wait=wait_fixed(0.005),
                stop=stop_after_delay(GIVE_UP),
            )
            holder = blocker.info.backend_pid
            try:
                state = polling(lambda: "ended" if running.done() else _waits(watcher, pid, holder))
                locks = locks_of(watcher, pid, ground) if state == "waits" else {}
            finally:
                watcher.execute("SELECT pg_cancel_backend(%s)", [pid])
            error = running.exception()
        if error is not None and not isinstance(error, psycopg.errors.QueryCanceled):
            raise error
        return locks, watcher.execute(_INVALID).fetchall() != earlier


def _waits(watcher: Session, pid: int, holder: int) -> str | None:
    """Return `waits` if a session waits for the one that holds the lock; None otherwise."""
    blocked = watcher.execute("SELECT %s = ANY (pg_blocking_pids(%s))", [holder, pid]).fetchall()
    return "waits" if blocked[0][0] else None


def disagreements(migration: Migration, ground: Ground) -> list[str]:
    """Compare the labels of a migration with what is measured."""
    expected, measured = migration.labels(ground.version), measure(migration, ground)
    found = []
    for label in LABELS:
        says, is_so = expected.get(label, frozenset()), measured.get(label, frozenset())
        if label != "reversible" and says != is_so:
            found.append(f"{label}: says {_words(says)}, is {_words(is_so)}")
    return found


def _words(values: frozenset[str]) -> str:
    return ", ".join(sorted(values)) or "none"


def main() -> int:
    """Print every disagreement; 1 if there is one, or if nothing was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--postgres", default=str(VERSIONS[0]), help="major version, or a folder")
    parser.add_argument("--database-url", help="a server to measure on, instead of an embedded one")
    parser.add_argument("name", nargs="*", help="only migrations whose name contains one of these")
    chosen = parser.parse_args()
    wrong = measured = 0
    with open_server(chosen.database_url, chosen.postgres, lambda _step: None) as server:
        with prepared(server) as ground:
            for migration in migrations():
                known = not chosen.name or any(part in migration.name for part in chosen.name)
                if not known or migration.since > ground.version:
                    continue
                measured += 1
                for line in disagreements(migration, ground):
                    wrong += 1
                    sys.stdout.write(f"{migration.name}: {line}\n")
            counts = f"{measured} migrations, {wrong} disagreements"
            sys.stdout.write(f"PostgreSQL {server.version}: {counts}\n")
    return 1 if wrong or not measured else 0


if __name__ == "__main__":
    sys.exit(main())
