"""The deploy from beginning to end: what is done in which order, and what is tried again."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import psycopg
from alembic import context
from alembic.runtime.migration import MigrationContext, RevisionStep, StampStep
from alembic.util import CommandError
from migrations.deploy.errors import FailedError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential_jitter,
)

from migrations import postgres, snapshot
from migrations.deploy import advisory_lock, connection, errors, preflight, verification
from migrations.deploy.exit import report_outcome, to_command_error
from migrations.deploy.interruption import Interruption
from migrations.deploy.lock_monitor import LockMonitor, monitor_locks
from migrations.deploy.report import DeployReport

PATIENCE = 10.0
"""Minutes to go on trying while others hold what is needed; `-x patience=` says otherwise."""

MOST = 24 * 60.0

CONNECTIONS = 3
"""How often to connect in all: a revision that brings the server down must not do so for long."""

log = logging.getLogger("deploy")

type Configure = Callable[..., None]
type Step = RevisionStep | StampStep


@dataclass
class _Job:
    """What is to be done, and where."""

    engine: Engine
    configure: Configure
    command: dict[str, Any]
    """What Alembic's command handed to `context.configure`; `fn` says which steps it takes."""
    patience: float
    """Seconds."""
    receipt: DeployReport
    interruption: Interruption
    stuck: float | None = None
    """Since when (monotonic) nothing has come on because of others' locks."""
    plan: list[Step] | None = None
    """The steps from where the database was at first: what is left of them is done later, so that
    `downgrade -1` takes back one revision however often it is tried."""


def deploy(configure: Configure) -> None:
    """Carry out Alembic's command on the database that DATABASE_URL names.

    `configure` is `context.configure` with the project's settings. A command that does not move
    the database (current, check, revision) only connects.

    Raises:
        CommandError: it could not be done; the message is one sentence without credentials.
        KeyboardInterrupt: Ctrl-C or SIGTERM ended it.
        SystemExit: the same on the command line, where the sentence has been said: 2 when nothing
            was changed, 130 when it was interrupted, else 1.

    """
    receipt = DeployReport()
    with report_outcome(receipt) as interruption:
        configure(dialect_name="postgresql")
        command = dict(context.get_context().opts)
        url = postgres.url_from_environment()
        receipt.database = postgres.describe_url(url)
        engine = connection.open_engine(url)
        job = _Job(engine, configure, command, _patience(), receipt, interruption)
        if "destination_rev" not in command:
            with _connected(job) as connection:
                configure(connection=connection)
                context.run_migrations()
            return
        preflight.require_single_head(context.script)
        if not verification.committed_schema():
            raise CommandError(
                "migrations/schema.txt is missing, and the deploy could not be verified: ship it"
                " with the deploy, or write it with `schema snapshot`."
            )
        retrying = Retrying(
            retry=retry_if_exception(
                lambda error: isinstance(error, errors.LostError) and not interruption.arrived
            ),
            stop=stop_after_attempt(CONNECTIONS),
            before_sleep=lambda state: log.warning(
                "%s; connecting again.", errors.attempt_error(state)
            ),
            reraise=True,
        )
        try:
            retrying(_connect_and_move, job)
        except errors.LostError as error:
            raise FailedError(f"{error}, {CONNECTIONS} times; run this again.") from None


def _connected(job: _Job) -> AbstractContextManager[Connection]:
    return connection.connect_with_retry(job.engine, job.patience, log.warning, job.interruption)


def _connect_and_move(job: _Job) -> None:
    """Do what is left to do, in one connection."""
    job.receipt.connections += 1
    with _connected(job) as connection:
        try:
            with advisory_lock.hold_deploy_lock(connection, job.patience, log.warning):
                _move(connection, job)
        except errors.LostError:
            raise
        except Exception as error:
            if not connection.is_connection_lost(connection):
                raise
            reason = postgres.first_error_line(error)
            raise errors.LostError(f"The connection was lost ({reason})") from error


def _move(connection: Connection, job: _Job) -> None:
    """Move the database to the destination, if nothing is in the way, and verify where it is."""
    scripts, receipt = context.script, job.receipt
    with connection.begin():
        for obstacle in preflight.check_server(connection):
            raise CommandError(obstacle)
        for obstacle in () if _stamps(job) else preflight.check_revision(connection, scripts):
            raise CommandError(obstacle)
        receipt.server = connection.exec_driver_sql("SHOW server_version").scalar_one().split()[0]
        at = preflight.recorded_revisions(connection)
    receipt.after = at[0] if at else None
    if job.plan is None:
        receipt.before = receipt.after
        job.plan = _plan(job, tuple(at))
    elif not _stamps(job):
        # A commit whose answer was lost: it is done, and belongs into the receipt.
        for step in job.plan[: len(job.plan) - len(_left(job, tuple(at)))]:
            receipt.note(step.info)
    with monitor_locks(job.engine, connection, log.warning) as watch:
        work = (_warn, _clear, _migrate, _verify) if job.plan else (_verify,)
        try:
            for part in work:
                _retrying(connection, job, watch)(part, connection, job)
        except Exception as error:
            if connection.is_connection_lost(connection):
                raise
            raise to_command_error(error, receipt, watch.last) from error
        finally:
            longest = max(receipt.longest_lock_wait_seconds, watch.longest)
            receipt.longest_lock_wait_seconds = round(longest, 2)


def _warn(connection: Connection, job: _Job) -> None:
    """Say what may hold the deploy up, and what was changed behind the migrations' back."""
    if job.receipt.connections > 1:
        return
    with connection.begin():
        found = list(preflight.warnings(connection))
        if difference := verification.changes_since_deploy(connection, job.receipt.before):
            found.append(
                "The schema was changed since the last deploy, not by a revision (+ is there now,"
                f" - is not any more):\n{difference}"
            )
    for warning in found:
        log.warning(warning)
    job.receipt.warnings += found


def _clear(connection: Connection, _job: _Job) -> None:
    """Drop the indexes that a concurrent build left invalid when it was cut.

    No other deploy is building one, the lock says so, and what somebody else is building is left.
    """
    with connection.begin():
        remnants = preflight.invalid_indexes(connection, being_built=False)
    if not remnants:
        return
    connection.execution_options(isolation_level="AUTOCOMMIT")
    try:
        for index in remnants:
            if index not in preflight.invalid_indexes(connection, being_built=False):
                continue
            log.warning("Dropping the index %s, which a build that was cut left invalid.", index)
            connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")
    finally:
        if not connection.is_connection_lost(connection):
            connection.rollback()
            connection.execution_options(isolation_level="READ COMMITTED")


def _migrate(connection: Connection, job: _Job) -> None:
    """Run the revisions that are left, each in a transaction of its own."""

    def steps(heads: tuple[str, ...], _context: MigrationContext) -> Iterator[Step]:
        for step in _left(job, heads):
            job.interruption.check()
            connection.commit()  # Alembic's own table, before the first step
            connection.reset_session(connection)
            advisory_lock.require_lock(connection)
            with job.receipt.timed(step.info) as begun:
                if begun.attempts == 1:
                    log.info("%s %s: %s.", begun.direction, begun.revision, begun.summary)
                yield step  # what follows happens after its commit
                job.stuck = None
                if connection.in_transaction():
                    raise FailedError(
                        f"Revision {begun.revision} ended its transaction by itself (a commit or"
                        " rollback in it), and what came after is lost; use a savepoint, or an"
                        " autocommit block, and run this again."
                    )

    job.configure(connection=connection, fn=steps)
    context.run_migrations()
    connection.rollback()  # what Alembic read before the first step


def _plan(job: _Job, heads: tuple[str, ...]) -> list[Step]:
    """The steps from there to the destination, as Alembic finds them."""
    try:
        start = () if job.command.get("purge") else heads
        return list(job.command["fn"](start, context.get_context()))
    except CommandError as error:
        named = job.command["destination_rev"]
        destination = named if isinstance(named, str) else ", ".join(named)
        raise CommandError(
            f"There is no way to {destination} from {', '.join(heads) or 'nothing'} ({error});"
            " `alembic history` lists the revisions."
        ) from error


def _left(job: _Job, heads: tuple[str, ...]) -> list[Step]:
    """The steps of the plan that lead on from there."""
    plan = job.plan or []
    if not plan or _stamps(job):  # a stamp is one step, from wherever
        return plan
    places = [step.info.source_revision_ids for step in plan]
    places.append(plan[-1].info.destination_revision_ids)
    if heads not in places:
        raise FailedError(
            f"Somebody else has moved the database to {', '.join(heads) or 'no revision'}"
            " meanwhile; run this again."
        )
    return plan[places.index(heads) :]


def _stamps(job: _Job) -> bool:
    """Whether the command only says where the database is: `alembic stamp`."""
    return "purge" in job.command


def _retrying(connection: Connection, job: _Job, watch: LockMonitor) -> Retrying:
    """Try again, with growing pauses, what could not have its locks at once."""

    def gives_way(error: BaseException) -> bool:
        if job.interruption.arrived:
            return False
        original = error.orig if isinstance(error, DBAPIError) else error
        return isinstance(
            original, (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
        )

    def exhausted(_state: RetryCallState) -> bool:
        job.stuck = job.stuck or time.monotonic()
        return time.monotonic() - job.stuck >= job.patience

    def again(state: RetryCallState) -> None:
        seconds = state.next_action.sleep if state.next_action else 0
        watch.statement = None
        waited = watch.last or postgres.first_error_line(errors.attempt_error(state))
        log.warning("%s; giving way, and trying again in %.1f s.", waited, seconds)
        connection.rollback()
        watch.send_autovacuum_away(connection)

    return Retrying(
        retry=retry_if_exception(gives_way),
        wait=wait_exponential_jitter(multiplier=0.1, max=5, exp_base=1.5, jitter=0.3),
        stop=exhausted,
        before_sleep=again,
        reraise=True,
    )


def _verify(connection: Connection, job: _Job) -> None:
    """Compare the schema that the database now has with the committed one."""
    receipt = job.receipt
    with connection.begin():
        at = preflight.recorded_revisions(connection)
        receipt.after = at[0] if at else None
        expected = job.plan[-1].info.destination_revision_ids if job.plan else tuple(at)
        if len(at) > 1 or (tuple(at) != expected and not _stamps(job)):
            raise FailedError(
                f"The database is at {', '.join(at) or 'no revision'}, and not at"
                f" {', '.join(expected) or 'no revision'}; run this again."
            )
        schema = verification.read_schema(connection, receipt.after)
        committed = verification.committed_schema()
        if snapshot.revision(committed) == receipt.after:
            receipt.difference = snapshot.text_difference(committed, schema)
            receipt.verified = not receipt.difference
        if job.plan and receipt.after is not None:
            verification.store_schema(connection, schema)
    if receipt.difference:
        raise FailedError(
            f"The database is at {receipt.after}, but its schema is not the committed one (-"
            " schema.txt, + the database): write a revision for what is right, undo what is not,"
            f" and run this again.\n{receipt.difference}"
        )


def _patience() -> float:
    """Read how long to wait in all, in seconds, and refuse what nobody reads."""
    given = context.get_x_argument(as_dictionary=True)
    unknown = sorted(given.keys() - {"patience", "receipt"})
    if unknown:
        raise CommandError(
            f"There is no option -x {unknown[0]}, only -x patience=MINUTES and -x receipt=json."
        )
    if given.get("receipt", "json") != "json":
        raise CommandError("The only other form of a receipt is JSON: -x receipt=json.")
    try:
        minutes = float(given.get("patience", PATIENCE))
    except ValueError:
        minutes = -1
    if not 0 <= minutes < MOST:
        raise CommandError(
            f"-x patience takes minutes, from 0 to {MOST:g}: for example -x patience=30."
        )
    return minutes * 60
