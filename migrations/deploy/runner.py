"""The deploy, in the order in which it happens: read `deploy`, then `_move_database`.

    connect  →  hold the lock  →  refuse  →  warn  →  clear  →  migrate  →  verify  →  report

A lost connection is made again, a lock that is not free is tried again. The steps are planned once,
at the first connection, and each later attempt runs those that are not committed yet.
"""

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
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential_jitter,
)

from migrations import snapshot
from migrations.deploy import preflight
from migrations.deploy.advisory_lock import hold_deploy_lock, require_lock
from migrations.deploy.connection import (
    connect_with_retry,
    is_connection_lost,
    open_engine,
    reset_session,
)
from migrations.deploy.errors import FailedError, LostError, attempt_error
from migrations.deploy.exit import report_outcome, to_command_error
from migrations.deploy.interruption import Interruption
from migrations.deploy.lock_monitor import LockMonitor, monitor_locks
from migrations.deploy.report import DeployReport
from migrations.deploy.verification import (
    changes_since_deploy,
    committed_schema,
    read_schema,
    store_schema,
)
from migrations.postgres import describe_url, first_error_line, url_from_environment

TIMEOUT_MINUTES = 10.0
"""How long to try while others hold a lock; `-x timeout-minutes=` says otherwise."""

MAX_TIMEOUT_MINUTES = 24 * 60.0

MAX_CONNECTIONS = 3
"""How often to connect in all: a revision that crashes the server must not do so for long."""

log = logging.getLogger("deploy")

type Configure = Callable[..., None]
type Step = RevisionStep | StampStep


@dataclass
class _Job:
    """One deploy: its command, its limits, its report, and how far it is."""

    engine: Engine
    configure: Configure
    command: dict[str, Any]
    """What Alembic's command passed to `context.configure`; `fn` returns the steps."""
    timeout: float
    """Seconds."""
    report: DeployReport
    interruption: Interruption
    blocked_since: float | None = None
    """Monotonic time of the first lock failure since the last commit; None if not blocked."""
    plan: list[Step] | None = None
    """The steps planned at the first connection, so that `downgrade -1` reverts one revision
    however often it is tried."""

    @property
    def stamps(self) -> bool:
        """Whether the command only records a revision: `alembic stamp`."""
        return "purge" in self.command

    @property
    def moves(self) -> bool:
        """Whether the command changes the database's revision."""
        return "destination_rev" in self.command


def deploy(configure: Configure) -> None:
    """Carry out Alembic's command on the database that DATABASE_URL names.

    `configure` is `context.configure` with the project's settings. A command that does not move
    the database (current, check, revision) only connects.

    Raises:
        CommandError: it could not be done; the message is one sentence without credentials.
        KeyboardInterrupt: Ctrl-C or SIGTERM ended it.
        SystemExit: the same on the command line, after the sentence was printed: 2 when nothing was
            changed, 130 when it was interrupted, else 1.

    """
    report = DeployReport()
    with report_outcome(report) as interruption:
        configure(dialect_name="postgresql")
        command = dict(context.get_context().opts)
        url = url_from_environment()
        report.database = describe_url(url)
        job = _Job(open_engine(url), configure, command, _timeout(), report, interruption)
        if not job.moves:
            with _connected(job) as connection:
                configure(connection=connection)
                context.run_migrations()
            return
        preflight.require_single_head(context.script)
        if not committed_schema():
            raise CommandError(
                "migrations/schema.txt is missing, and the deploy could not be verified: ship it"
                " with the deploy, or write it with `schema snapshot`."
            )
        try:
            _again_after_lost_connection(job)(_connect_and_move, job)
        except LostError as error:
            raise FailedError(f"{error}, {MAX_CONNECTIONS} times; run this again.") from None


def _connect_and_move(job: _Job) -> None:
    """Connect, keep other deploys out, and run the steps that are left."""
    job.report.connections += 1
    with _connected(job) as connection:
        try:
            with hold_deploy_lock(connection, job.timeout, log.warning):
                _move_database(connection, job)
        except LostError:
            raise
        except Exception as error:
            if not is_connection_lost(connection):
                raise
            reason = first_error_line(error)
            raise LostError(f"The connection was lost ({reason})") from error


def _move_database(connection: Connection, job: _Job) -> None:
    """Refuse, or warn, clear, migrate and verify."""
    _refuse(connection, job)
    with monitor_locks(job.engine, connection, log.warning) as monitor:
        work = (_warn, _drop_invalid_indexes, _migrate, _verify) if job.plan else (_verify,)
        try:
            for part in work:
                _again_after_lock_failure(connection, job, monitor)(part, connection, job)
        except Exception as error:
            if is_connection_lost(connection):
                raise
            raise to_command_error(error, job.report, monitor.last) from error
        finally:
            longest = max(job.report.longest_lock_wait_seconds, monitor.longest)
            job.report.longest_lock_wait_seconds = round(longest, 2)


def _refuse(connection: Connection, job: _Job) -> None:
    """Raise what blocks the deploy, and plan its steps at the first connection."""
    report = job.report
    with connection.begin():
        for problem in preflight.check_server(connection):
            raise CommandError(problem)
        for problem in () if job.stamps else preflight.check_revision(connection, context.script):
            raise CommandError(problem)
        report.server = connection.exec_driver_sql("SHOW server_version").scalar_one().split()[0]
        at = tuple(preflight.recorded_revisions(connection))
    report.after = at[0] if at else None
    if job.plan is None:
        report.before = report.after
        job.plan = _plan(job, at)
    elif not job.stamps:
        # A commit whose answer was lost: it is done, and belongs into the report.
        for step in job.plan[: len(job.plan) - len(_remaining_steps(job, at))]:
            report.note(step.info)


def _warn(connection: Connection, job: _Job) -> None:
    """Warn of what may delay the deploy, and of changes that no revision made."""
    if job.report.connections > 1:
        return
    with connection.begin():
        found = list(preflight.warnings(connection))
        if difference := changes_since_deploy(connection, job.report.before):
            found.append(
                "The schema was changed since the last deploy, not by a revision (+ was added,"
                f" - was removed):\n{difference}"
            )
    for warning in found:
        log.warning(warning)
    job.report.warnings += found


def _drop_invalid_indexes(connection: Connection, _job: _Job) -> None:
    """Drop the indexes that an interrupted concurrent build left invalid.

    No other deploy builds one: this one holds the lock. What somebody else builds is left alone.
    """
    with connection.begin():
        invalid = preflight.invalid_indexes(connection, being_built=False)
    if not invalid:
        return
    connection.execution_options(isolation_level="AUTOCOMMIT")
    try:
        for index in invalid:
            if index not in preflight.invalid_indexes(connection, being_built=False):
                continue
            log.warning("Dropping the index %s, which an interrupted build left invalid.", index)
            connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")
    finally:
        if not is_connection_lost(connection):
            connection.rollback()
            connection.execution_options(isolation_level="READ COMMITTED")


def _migrate(connection: Connection, job: _Job) -> None:
    """Run the remaining revisions, each in a transaction of its own."""

    def steps(heads: tuple[str, ...], _context: MigrationContext) -> Iterator[Step]:
        for step in _remaining_steps(job, heads):
            job.interruption.check()
            connection.commit()  # Alembic's own table, before the first step
            reset_session(connection)
            require_lock(connection)
            with job.report.timed(step.info) as begun:
                if begun.attempts == 1:
                    log.info("%s %s: %s.", begun.direction, begun.revision, begun.summary)
                yield step  # what follows happens after its commit
                job.blocked_since = None
                if connection.in_transaction():
                    raise FailedError(
                        f"Revision {begun.revision} ended its transaction by itself (a commit or"
                        " rollback in it), and what came after is lost; use a savepoint, or an"
                        " autocommit block, and run this again."
                    )

    job.configure(connection=connection, fn=steps)
    context.run_migrations()
    connection.rollback()  # what Alembic read before the first step


def _verify(connection: Connection, job: _Job) -> None:
    """Compare the schema that the database now has with the committed one."""
    report = job.report
    with connection.begin():
        at = tuple(preflight.recorded_revisions(connection))
        report.after = at[0] if at else None
        expected = job.plan[-1].info.destination_revision_ids if job.plan else at
        if len(at) > 1 or (at != expected and not job.stamps):
            raise FailedError(
                f"The database is at {', '.join(at) or 'no revision'}, and not at"
                f" {', '.join(expected) or 'no revision'}; run this again."
            )
        schema = read_schema(connection, report.after)
        committed = committed_schema()
        if snapshot.revision(committed) == report.after:
            report.difference = snapshot.text_difference(committed, schema)
            report.verified = not report.difference
        if job.plan and report.after is not None:
            store_schema(connection, schema)
    if report.difference:
        raise FailedError(
            f"The database is at {report.after}, but its schema is not the committed one (-"
            " schema.txt, + the database): write a revision for what is right, revert what is not,"
            f" and run this again.\n{report.difference}"
        )


def _plan(job: _Job, heads: tuple[str, ...]) -> list[Step]:
    """Return the steps from the recorded revision to the destination, as Alembic finds them."""
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


def _remaining_steps(job: _Job, heads: tuple[str, ...]) -> list[Step]:
    """Return the steps of the plan that start at the recorded revision or later."""
    plan = job.plan or []
    if not plan or job.stamps:  # a stamp is one step, from wherever
        return plan
    places = [step.info.source_revision_ids for step in plan]
    places.append(plan[-1].info.destination_revision_ids)
    if heads not in places:
        raise FailedError(
            f"Somebody else has moved the database to {', '.join(heads) or 'no revision'}"
            " meanwhile; run this again."
        )
    return plan[places.index(heads) :]


def _connected(job: _Job) -> AbstractContextManager[Connection]:
    return connect_with_retry(job.engine, job.timeout, log.warning, job.interruption)


def _again_after_lost_connection(job: _Job) -> Retrying:
    return Retrying(
        retry=retry_if_exception(
            lambda error: isinstance(error, LostError) and not job.interruption.arrived
        ),
        stop=stop_after_attempt(MAX_CONNECTIONS),
        before_sleep=lambda state: log.warning("%s; connecting again.", attempt_error(state)),
        reraise=True,
    )


def _again_after_lock_failure(connection: Connection, job: _Job, monitor: LockMonitor) -> Retrying:
    """Retry what could not have its locks at once, with growing pauses."""

    def is_lock_failure(error: BaseException) -> bool:
        original = error.orig if isinstance(error, DBAPIError) else error
        failures = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
        return isinstance(original, failures) and not job.interruption.arrived

    def exhausted(_state: RetryCallState) -> bool:
        job.blocked_since = job.blocked_since or time.monotonic()
        return time.monotonic() - job.blocked_since >= job.timeout

    def give_way(state: RetryCallState) -> None:
        seconds = state.next_action.sleep if state.next_action else 0
        monitor.statement = None
        waited = monitor.last or first_error_line(attempt_error(state))
        log.warning("%s; giving way, and trying again in %.1f s.", waited, seconds)
        connection.rollback()
        monitor.wait_for_autovacuum(connection)

    return Retrying(
        retry=retry_if_exception(is_lock_failure),
        wait=wait_exponential_jitter(multiplier=0.1, max=5, exp_base=1.5, jitter=0.3),
        stop=exhausted,
        before_sleep=give_way,
        reraise=True,
    )


def _timeout() -> float:
    """Read `-x timeout-minutes`, in seconds, and refuse unknown options."""
    given = context.get_x_argument(as_dictionary=True)
    unknown = sorted(given.keys() - {"timeout-minutes", "report"})
    if unknown:
        raise CommandError(
            f"There is no option -x {unknown[0]}, only -x timeout-minutes=MINUTES and"
            " -x report=json."
        )
    if given.get("report", "json") != "json":
        raise CommandError("The only other form of a report is JSON: -x report=json.")
    try:
        minutes = float(given.get("timeout-minutes", TIMEOUT_MINUTES))
    except ValueError:
        minutes = -1
    if not 0 <= minutes < MAX_TIMEOUT_MINUTES:
        raise CommandError(
            f"-x timeout-minutes takes a number from 0 to {MAX_TIMEOUT_MINUTES:g}: for example"
            " -x timeout-minutes=30."
        )
    return minutes * 60
