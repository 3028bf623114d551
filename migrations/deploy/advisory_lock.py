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

_HOLDER = text(
    """
    SELECT a.pid, a.usename, a.application_name, a.backend_type, a.state,
           extract(epoch FROM clock_timestamp() - a.backend_start)::float AS seconds
    FROM pg_locks AS l
    JOIN pg_stat_activity AS a ON a.pid = l.pid
    JOIN pg_database AS d ON d.oid = l.database
    WHERE l.locktype = 'advisory' AND l.granted AND d.datname = current_database()
      AND l.classid = :high AND l.objid = :low AND l.objsubid = 1
    """
).bindparams(high=LOCK >> 32, low=LOCK & 0xFFFFFFFF)


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
    holder = _holder(connection)
    driver = connection.connection.driver_connection
    if driver is None or holder is None or holder.pid != driver.info.backend_pid:
        raise CommandError(
            "A revision released the deploy lock (pg_advisory_unlock_all or DISCARD ALL); remove"
            " that statement and run this again."
        )


def _holder(connection: Connection) -> BackendActivity | None:
    with connection.begin():
        row = connection.execute(_HOLDER).one_or_none()
    return None if row is None else BackendActivity(*row)
