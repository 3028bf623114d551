"""A second session that sees what the deploy's own one waits for, and for how long."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError

from migrations.deploy.activity import BackendActivity, Log, describe_sql
from migrations.deploy.connection import is_connection_lost
from migrations.deploy.errors import FailedError

INTERVAL = 0.05
"""Seconds between two looks at a statement that has not ended: a fraction of lock_timeout."""

NEWS = 15
"""Seconds between two reports on the same statement."""

# These wait for other transactions without anybody waiting behind them, and start anew when cut.
_PATIENT = re.compile(
    r"""(?: \s | --[^\n]*\n | /\*.*?\*/ )*
        (?: (?: CREATE \s+ (?:UNIQUE\s+)? INDEX | DROP \s+ INDEX
              | REINDEX (?:\s*\([^)]*\))? \s+ \w+ ) \s+ CONCURRENTLY \b
          | REINDEX \s* \( [^)]* \b CONCURRENTLY \b )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)

_OWN_TRANSACTION = re.compile(
    r"\s*(?:COMMIT|END|ABORT|BEGIN|START\s+TRANSACTION|ROLLBACK(?!\s+(?:WORK\s+)?TO\b))\b",
    re.IGNORECASE,
)

_BLOCKERS = text(
    """
    SELECT l.relation::regclass::text,
           extract(epoch FROM clock_timestamp() - l.waitstart)::float,
           b.pid, a.usename, a.application_name, a.backend_type, a.state,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float, a.query
    FROM pg_locks AS l
    CROSS JOIN LATERAL (SELECT DISTINCT unnest(pg_blocking_pids(l.pid))) AS b (pid)
    LEFT JOIN pg_stat_activity AS a ON a.pid = b.pid
    WHERE l.pid = :pid AND NOT l.granted
    ORDER BY b.pid
    """
)

_PROGRESS = text(
    """
    SELECT phase || CASE WHEN blocks_total > 0
                         THEN format(', %s %%', 100 * blocks_done / blocks_total) ELSE '' END
    FROM pg_stat_progress_create_index WHERE pid = :pid
    """
)


@dataclass(frozen=True)
class LockWait:
    """What a statement waited for when it was last looked at."""

    statement: str
    table: str | None
    """The table whose lock it waits for; None for a row's, or for transactions to end."""
    seconds: float
    sessions: tuple[BackendActivity, ...]

    def __str__(self) -> str:
        """Say what waits for whom."""
        return (
            f"{describe_sql(self.statement)} waits for {' and for '.join(map(str, self.sessions))}"
        )

    @property
    def for_autovacuum(self) -> bool:
        """Whether what it waits for is autovacuum's work on the table, and nothing else."""
        return all(session.kind == "autovacuum worker" for session in self.sessions)


class LockMonitor:
    """What the second session has seen of the statement that the first one is at."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.last: LockWait | None = None
        """The last wait of the statement that was executed last."""
        self.longest = 0.0
        """Seconds of the longest wait so far."""
        self.statement: tuple[str, float] | None = None
        """What is being executed, and since when (monotonic); the first session's thread says so,
        and the second one's writes the rest."""

    def wait_for_autovacuum(self, connection: Connection) -> None:
        """Have autovacuum leave the table that was waited for, where it alone is in the way.

        It goes when somebody has waited for deadlock_timeout, a second: longer than we may keep
        others waiting. But nobody waits behind this lock, and it is what autovacuum holds.
        """
        wait = self.last
        if wait is None or wait.table is None or not wait.for_autovacuum:
            return
        try:
            with connection.begin():
                connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
                table = wait.table
                connection.exec_driver_sql(f"LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE")
        except DBAPIError:
            if is_connection_lost(connection):
                raise


@contextmanager
def monitor_locks(engine: Engine, connection: Connection, log: Log) -> Iterator[LockMonitor]:
    """Watch the connection's statements, and report on those that take or wait long.

    A concurrent index build may wait for other transactions for as long as they last: nobody waits
    behind it, and cutting it would throw the work away. Every other lock is waited for as long as
    the session's lock_timeout says.
    """
    watch = LockMonitor()
    stop = threading.Event()
    pid: int = connection.scalar(text("SELECT pg_backend_pid()")) or 0
    connection.commit()

    def before(_connection: Connection, cursor: Any, sql: str, *_rest: object) -> None:  # noqa: ANN401  # psycopg's
        if _OWN_TRANSACTION.match(sql):
            raise FailedError(
                f"A revision's transaction is not its own to end ({describe_sql(sql)}): use a"
                " savepoint, or an autocommit block, and run this again."
            )
        if _PATIENT.match(sql):
            cursor.execute("SET lock_timeout = 0")
        watch.last = None
        watch.statement = (sql, time.monotonic())

    def after(_connection: Connection, cursor: Any, sql: str, *_rest: object) -> None:  # noqa: ANN401  # psycopg's
        watch.statement = None
        if _PATIENT.match(sql):
            cursor.connection.execute("RESET lock_timeout")  # to what the session began with

    hooks = {"before_cursor_execute": before, "after_cursor_execute": after}
    thread = threading.Thread(target=_look, args=(engine, pid, watch, stop, log), daemon=True)
    for name, hook in hooks.items():
        event.listen(connection, name, hook)
    thread.start()
    try:
        yield watch
    finally:
        stop.set()
        thread.join(timeout=5)
        for name, hook in hooks.items():
            event.remove(connection, name, hook)


def _look(engine: Engine, pid: int, watch: LockMonitor, stop: threading.Event, log: Log) -> None:
    """Look, in a thread of its own, at each statement that has not ended soon."""
    told: tuple[float, float] = (0, 0)  # since when the statement ran, and when it was reported on
    observer: Connection | None = None
    while not stop.wait(INTERVAL):
        try:
            if observer is None:
                observer = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            running = watch.statement
            if running is None or time.monotonic() - running[1] < INTERVAL:
                continue
            sql, since = running
            rows = observer.execute(_BLOCKERS, {"pid": pid}).all()
            if rows and watch.statement is running:
                table, seconds = rows[0][:2]
                sessions = tuple(BackendActivity(*row[2:]) for row in rows)
                watch.last = LockWait(sql, table, seconds or 0, sessions)
                watch.longest = max(watch.longest, watch.last.seconds)
            now = time.monotonic()
            if now - since > 1 and (told[0] != since or now - told[1] > NEWS):
                told = (since, now)
                doing = str(watch.last) if rows else _progress(observer, pid, sql)
                log(f"For {now - since:.0f} s: {doing}.")
        except DBAPIError:  # the deploy goes on without knowing whom it waits for
            observer = None
            stop.wait(5)
    if observer is not None:
        observer.close()


def _progress(observer: Connection, pid: int, sql: str) -> str:
    phase = observer.scalar(_PROGRESS, {"pid": pid})
    return describe_sql(sql) + (f" ({phase})" if phase else "")
