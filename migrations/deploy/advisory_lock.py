"""The advisory lock that allows one deploy at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic.util import CommandError
from sqlalchemy import Connection, text
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_not_result,
    stop_after_delay,
    wait_exponential_jitter,
)

from migrations.deploy.activity import BackendActivity, Log
from migrations.deploy.connection import is_connection_lost

LOCK = int.from_bytes(b"alembic")
"""Key of the advisory lock. The lock is per database and ends with its session."""

_KEY = {"high": LOCK >> 32, "low": LOCK & 0xFFFFFFFF}

_HOLDS = """
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND pid = {} AND classid = :high AND objid = :low
      AND objsubid = 1 AND database = (SELECT oid FROM pg_database
                                       WHERE datname = current_database())
"""

_HOLDER = text(
    f"""
    SELECT a.pid, a.usename, a.application_name, a.backend_type, a.state,
           extract(epoch FROM clock_timestamp() - a.backend_start)::float AS seconds
    FROM pg_stat_activity AS a WHERE EXISTS ({_HOLDS.format("a.pid")}) ORDER BY a.backend_start
    """
)


@contextmanager
def hold_deploy_lock(connection: Connection, timeout: float, log: Log) -> Iterator[None]:
    """Hold the deploy lock during the block. While another session has it, log which one and retry.

    This polls: a session that waits for an advisory lock holds a snapshot, and the other deploy's
    CREATE INDEX CONCURRENTLY would wait for that snapshot. `timeout` is in seconds.

    Raises:
        CommandError: the other deploy did not end in time.

    """
    logged = ""

    def try_lock() -> bool:
        with connection.begin():
            return bool(connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK}))

    def holder() -> str:
        return str(_holder(connection) or "its lock is free now")

    def log_holder(_state: RetryCallState) -> None:
        nonlocal logged
        if (now := holder()) != logged:
            log(f"Waiting for another deploy: {now}.")
        logged = now

    retrying = Retrying(
        retry=retry_if_not_result(bool),
        wait=wait_exponential_jitter(multiplier=0.2, max=2, jitter=0.5),
        stop=stop_after_delay(timeout),
        before_sleep=log_holder,
        retry_error_callback=lambda _state: False,
    )
    if not retrying(try_lock):
        raise CommandError(
            f"Another deploy has not ended within {timeout / 60:g} minutes: {holder()}; run this"
            " again when it has ended."
        )
    try:
        yield
    finally:
        if not is_connection_lost(connection):
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK})
            connection.commit()


def require_lock(connection: Connection) -> None:
    """Make sure, between two revisions, that this session still holds the deploy lock.

    Raises:
        CommandError: a revision released the lock.

    """
    with connection.begin():
        held = connection.scalar(text(f"SELECT EXISTS ({_HOLDS.format('pg_backend_pid()')})"), _KEY)
    if not held:
        raise CommandError(
            "A revision released the deploy lock (pg_advisory_unlock_all or DISCARD ALL); remove"
            " that statement and run this again."
        )


def _holder(connection: Connection) -> BackendActivity | None:
    """Return the oldest session that holds the lock; several can share it, but no deploy does."""
    with connection.begin():
        row = connection.execute(_HOLDER, _KEY).first()
    return None if row is None else BackendActivity(*row)
