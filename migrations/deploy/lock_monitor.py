"""Watch from a second session which locks the deploy's session waits for, and for how long."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError

from migrations.deploy.activity import BackendActivity, Log
from migrations.deploy.connection import is_connection_lost
from migrations.deploy.statement import describe_sql

POLL_SECONDS = 0.05
"""Time between two polls; much shorter than lock_timeout."""

LOG_SECONDS = 15
"""Time between two log lines about the same statement."""

_BLOCKERS = text(
    """
    SELECT l.relation::regclass::text,
           extract(epoch FROM clock_timestamp() - l.waitstart)::float,
           b.pid, a.usename, a.application_name, a.backend_type, a.state,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float
    FROM pg_locks AS l
    CROSS JOIN LATERAL (SELECT DISTINCT unnest(pg_blocking_pids(l.pid))) AS b (pid)
    LEFT JOIN pg_stat_activity AS a ON a.pid = b.pid
    WHERE l.pid = :pid AND NOT l.granted
    ORDER BY b.pid
    """
)


@dataclass(frozen=True)
class LockWait:
    """The lock that a statement waited for at the last poll."""

    statement: str
    table: str | None
    """The table whose lock it waits for; None for the lock of a row or a transaction."""
    seconds: float
    sessions: tuple[BackendActivity, ...]

    def __str__(self) -> str:
        """Describe the statement and the sessions that it waits for."""
        lock = f" and its lock on {self.table}" if self.table else ""
        sessions = " and for ".join(map(str, self.sessions))
        return f"{describe_sql(self.statement)} waits for {sessions}{lock}"

    @property
    def for_autovacuum(self) -> bool:
        """Whether it waits only for autovacuum."""
        return all(session.kind == "autovacuum worker" for session in self.sessions)


class LockMonitor:
    """Lock waits of the running statement, as seen from the second session.

    The deploy's thread writes `statement` and clears `last`; the polling thread writes the rest.
    """

    def __init__(self) -> None:
        """Begin without a statement."""
        self.last: LockWait | None = None
        """The last wait of the latest statement."""
        self.longest = 0.0
        """Seconds of the longest wait so far."""
        self.statement: tuple[str, float] | None = None
        """The running statement and the monotonic time of its start."""

    @contextmanager
    def watch(self, what: str) -> Iterator[None]:
        """Watch what does not run through SQLAlchemy during the block; `what` names it."""
        self.last, self.statement = None, (what, time.monotonic())
        yield
        self.statement = None

    def wait_for_autovacuum(self, connection: Connection) -> None:
        """If only autovacuum blocked the last statement, wait until it leaves the table.

        PostgreSQL cancels autovacuum for a session that has waited for deadlock_timeout (1 second),
        but lock_timeout is shorter. So this waits in SHARE UPDATE EXCLUSIVE mode: autovacuum holds
        it too, and reads and writes do not queue behind it.
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
    """Watch the connection's statements during the block, and log the slow ones."""
    monitor = LockMonitor()
    stop = threading.Event()
    pid: int = connection.scalar(text("SELECT pg_backend_pid()")) or 0
    connection.commit()

    def before(_connection: Connection, _cursor: object, sql: str, *_rest: object) -> None:
        monitor.last = None
        monitor.statement = (sql, time.monotonic())

    def after(*_event: object) -> None:
        monitor.statement = None

    hooks: dict[str, Callable[..., None]] = {
        "before_cursor_execute": before,
        "after_cursor_execute": after,
    }
    thread = threading.Thread(target=_poll, args=(engine, pid, monitor, stop, log), daemon=True)
    for name, hook in hooks.items():
        event.listen(connection, name, hook)
    thread.start()
    try:
        yield monitor
    finally:
        stop.set()
        thread.join(timeout=5)
        for name, hook in hooks.items():
            event.remove(connection, name, hook)


def _poll(engine: Engine, pid: int, monitor: LockMonitor, stop: threading.Event, log: Log) -> None:
    """Look at the running statement every POLL_SECONDS, in a thread of its own."""
    logged: tuple[float, float] = (0, 0)  # start of the statement, time of its last log line
    observer: Connection | None = None
    while not stop.wait(POLL_SECONDS):
        try:
            running = monitor.statement
            if running is None or time.monotonic() - running[1] < POLL_SECONDS:
                continue
            if observer is None:
                observer = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            sql, since = running
            rows = observer.execute(_BLOCKERS, {"pid": pid}).all()
            if rows and monitor.statement is running:
                table, seconds = rows[0][:2]
                sessions = tuple(BackendActivity(*row[2:]) for row in rows)
                monitor.last = LockWait(sql, table, seconds or 0, sessions)
                monitor.longest = max(monitor.longest, monitor.last.seconds)
            now = time.monotonic()
            if now - since > 1 and (logged[0] != since or now - logged[1] > LOG_SECONDS):
                logged = (since, now)
                doing = str(monitor.last) if rows else describe_sql(sql)
                log(f"For {now - since:.0f} s: {doing}.")
        except DBAPIError:  # the deploy continues without lock reports
            observer = None
            stop.wait(5)
    if observer is not None:
        observer.close()
