"""Read the locks of a statement that no transaction may contain, while it runs.

Such a statement (CREATE INDEX CONCURRENTLY, VACUUM) has given its locks back when it ends. But it
waits for those who use its tables: a session that does, until the locks have been read once, makes
sure that they are read, however short the statement is.
"""

import time
from collections.abc import Sequence
from threading import Event, Thread

from schema.review.execution import locks
from schema.review.execution.relations import Relation, Relations, Session

_POLL = 0.002
"""Seconds between two readings."""


class Sampler:
    """Reads locks in a thread from its making until `stop`."""

    def __init__(
        self, pid: int, relations: Relations, named: Sequence[Relation], sessions: "Sessions"
    ) -> None:
        """Read the locks of that session; `named` are the tables that its statement names."""
        self.modes: dict[int, int] = {}
        """The strongest lock on each relation."""
        self._pid = pid
        self._relations = relations
        self._watcher, self._holder = sessions
        self._done = Event()
        self._held = bool(named)
        self._released = 0.0
        if named:
            names = ", ".join(one.sql for one in named)
            self._holder.execute("BEGIN")
            self._holder.execute(f"LOCK TABLE {names} IN ROW EXCLUSIVE MODE".encode())
        self._thread = Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Stop reading; return the time, as of time.monotonic, when nothing held it up any more."""
        self._done.set()
        self._thread.join()
        self._release()
        return self._released

    def _sample(self) -> None:
        try:
            self._read()
        finally:
            self._release()

    def _read(self) -> None:
        while not self._done.is_set():
            waits = self._held and self._watcher.execute(
                "SELECT %s = ANY (pg_catalog.pg_blocking_pids(%s))",
                [self._holder.info.backend_pid, self._pid],
            ).fetchall() == [(True,)]
            for oid, mode in locks.read(self._watcher, self._pid, self._relations).items():
                self.modes[oid] = max(mode, self.modes.get(oid, 0))
            if waits:
                self._release()
            self._done.wait(_POLL)

    def _release(self) -> None:
        if self._held:
            self._held = False
            self._holder.execute("ROLLBACK")
            self._released = time.monotonic()


type Sessions = tuple[Session, Session]
"""One that watches, and one that may hold a lock; both in autocommit mode."""
