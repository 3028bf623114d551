"""The modes of locks on relations, and what each keeps waiting.

PostgreSQL's documentation, Explicit Locking, Table-Level Locks: the table of conflicting modes.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

import psycopg

MODES = (
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)
"""From the weakest to the strongest."""

_SCHEMA, _WRITERS, _READERS = (
    MODES.index(mode) for mode in ("SHARE UPDATE EXCLUSIVE", "SHARE", "ACCESS EXCLUSIVE")
)

_HELD = """
SELECT l.relation, l.mode FROM pg_catalog.pg_locks AS l
JOIN pg_catalog.pg_database AS d ON d.oid = l.database
WHERE l.pid = %s AND d.datname = pg_catalog.current_database() AND l.locktype = 'relation'
"""

type Modes = Mapping[int, int]
"""The strongest lock on each relation, as a place in MODES, by oid."""


def read(watcher: psycopg.Connection[Any], pid: int, relations: Collection[int]) -> Modes:
    """Return the locks on these relations that a session holds or waits for."""
    found: dict[int, int] = {}
    for oid, mode in watcher.execute(_HELD, [pid]).fetchall():
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", mode.removesuffix("Lock")).upper()
        if oid in relations and words in MODES:  # SIReadLock blocks nothing
            found[oid] = max(MODES.index(words), found.get(oid, 0))
    return found


def blocks(mode: int, kind: str) -> str:
    """Say what a lock on a relation of that kind (pg_class.relkind) keeps waiting; "" for nothing.

    No session writes to a view or a materialised view: only what keeps out readers blocks.
    """
    if kind not in "rpmvf":
        return ""
    if mode == _READERS:
        return "reads and writes"
    if mode >= _WRITERS and kind not in "mv":
        return "writes"
    return "schema changes" if mode >= _SCHEMA else ""
