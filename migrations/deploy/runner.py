"""The deploy, from top to bottom: read `deploy`, then `_move_database`.

    connect  →  lock  →  check and plan  →  warn  →  migrate  →  repair indexes  →  verify

Around it, `report_outcome` prints the report and sets the exit code.

Lost connections and lock failures are retried. The revisions are planned once, during `check`; each
retry runs those that are not committed yet.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
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
from migrations.deploy import preflight, verification
from migrations.deploy.advisory_lock import hold_deploy_lock, require_lock
from migrations.deploy.concurrently import allow_concurrent, rebuild_invalid_indexes
from migrations.deploy.connection import (
    connect_with_retry,
    is_connection_lost,
    open_engine,
    reset_session,
)
from migrations.deploy.errors import DifferentError, FailedError, LostError, attempt_error
from migrations.deploy.exit import report_outcome, to_command_error
from migrations.deploy.interruption import Interruption
from migrations.deploy.lock_monitor import LockMonitor, monitor_locks
from migrations.deploy.own_transaction import watch_transaction
from migrations.deploy.report import DeployReport
from migrations.postgres import (
    describe_url,
    first_error_line,
    url_from_environment,
    visible,
)
from migrations.snapshot import ignored

TIMEOUT_MINUTES = 10.0
"""How long to retry while other sessions hold a lock; `-x timeout-minutes=` changes it."""

MAX_TIMEOUT_MINUTES = 24 * 60.0

LEAST_SECONDS = 0.2
"""The shortest wait for a lock that makes sense: lock_timeout."""

MAX_CONNECTIONS = 3
"""How often a deploy connects: a revision that crashes the server must not do so for long."""

RETRIED_ERRORS = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)

_ON_DEVELOPMENT = {
    False: "",
    True: "; if it has run an older text of a revision, downgrade and upgrade it",
}

log = logging.getLogger("deploy")

type Configure = Callable[..., None]
type Step = RevisionStep | StampStep


@dataclass
class _Job:
    engine: Engine
    configure: Configure
    command: dict[str, Any]
    """The options that Alembic's command passed on; `fn` returns the steps."""
    timeout: float
    """Seconds."""
    report: DeployReport
    interruption: Interruption
    blocked_since: float | None = None
    """Monotonic time of the first lock failure since the last commit; None if not blocked."""
    monitor: LockMonitor = field(default_factory=LockMonitor)
    """Of the latest connection."""
    plan: list[Step] | None = None
    """The steps, planned once: a retried `downgrade -1` must not revert a second revision."""

    def remaining_seconds(self) -> float:
        """How long the revision may still wait for locks, at least LEAST_SECONDS."""
        blocked = 0 if self.blocked_since is None else time.monotonic() - self.blocked_since
        return max(self.timeout - blocked, LEAST_SECONDS)

    @property
    def is_stamp(self) -> bool:
        """Whether the command only records a revision: `alembic stamp`."""
        return "purge" in self.command

    @property
    def changes_revision(self) -> bool:
        """Whether the command changes the database's revision."""
        return "destination_rev" in self.command


def deploy(configure: Configure) -> None:
    """Run Alembic's command on the database in DATABASE_URL.

    `configure` is `context.configure` with the project's settings. A command that does not change
    the revision (current, check, revision) only connects.

    Raises:
        CommandError: the command failed; the message is one sentence without credentials.
        KeyboardInterrupt: Ctrl-C or SIGTERM interrupted it.
        SystemExit: on the command line, in place of both: see `report_outcome`.

    """
    report = DeployReport()
    with report_outcome(report) as interruption:
        configure(dialect_name="postgresql")
        command = dict(context.get_context().opts)
        url = url_from_environment()
        report.database = describe_url(url)
        job = _Job(open_engine(url), configure, command, _timeout(), report, interruption)
        if not job.changes_revision:
            with _connected(job) as connection:
                configure(connection=connection)
                context.run_migrations()
            return
        preflight.require_single_head(context.script)
        verification.require_files()
        try:
            _retry_lost_connection(job)(_connect_and_move, job)
        except LostError as error:
            raise FailedError(f"{error}, {MAX_CONNECTIONS} times; run this again.") from None


def _connect_and_move(job: _Job) -> None:
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
    """Check the preconditions, warn, migrate and verify."""
    _check_and_plan(connection, job)
    with (
        monitor_locks(job.engine, connection, log.warning) as monitor,
        allow_concurrent(connection, job.remaining_seconds, log.warning),
    ):
        job.monitor = monitor
        phases = (_warn, _migrate, _repair, _verify) if job.plan else (_repair, _verify)
        try:
            for phase in phases:
                _retry_lock_failure(connection, job, monitor)(phase, connection, job)
        except Exception as error:
            if is_connection_lost(connection):
                raise
            raise to_command_error(error, job.report, monitor.last) from error
        finally:
            longest = max(job.report.longest_lock_wait_seconds, monitor.longest)
            job.report.longest_lock_wait_seconds = round(longest, 2)


def _check_and_plan(connection: Connection, job: _Job) -> None:
    """Raise the first problem that blocks the deploy; plan its steps at the first connection."""
    report = job.report
    with connection.begin():
        for problem in _problems(connection, job):
            raise CommandError(problem)
        report.server = connection.exec_driver_sql("SHOW server_version").scalar_one().split()[0]
        at = tuple(preflight.recorded_revisions(connection))
        report.after = at[0] if at else None
        if job.plan is None:
            report.before = report.after
            job.plan = _plan(job, at)
            pending = bool(job.plan) and not job.is_stamp
            for problem in preflight.check_row_security(connection, pending=pending):
                raise CommandError(problem)
            return
    if not job.is_stamp:
        # The connection was lost before the answer to COMMIT arrived.
        for step in job.plan[: len(job.plan) - len(_remaining_steps(job, at))]:
            report.add_committed(step.info)


def _problems(connection: Connection, job: _Job) -> Iterator[str]:
    yield from preflight.check_server(connection)
    if not job.is_stamp:
        yield from preflight.check_revision(connection, context.script)
    elif not job.command["purge"]:
        yield from preflight.check_single_revision(preflight.recorded_revisions(connection))


def _warn(connection: Connection, job: _Job) -> None:
    """Warn of delays and of a schema that is not its revision's, at the first connection."""
    if job.report.connections > 1:
        return
    with connection.begin():
        found = list(preflight.warnings(connection))
    try:
        with connection.begin():
            schema = _compare(connection, job, job.report.before)
    except (DBAPIError, psycopg.Error) as error:
        if is_connection_lost(connection):
            raise
        why = job.monitor.last or first_error_line(error)
        found.append(f"The schema could not be compared beforehand: {why}.")
    else:
        if schema is not None and schema.objects.differing:
            job.report.schema_equals = schema.nearest if schema.equals_another else None
            found.append(
                f"The schema is not the one of {schema.revision}: {schema}. `schema drift` shows"
                " the difference."
            )
    for warning in found:
        log.warning(visible(warning))
    job.report.warnings += found


def _migrate(connection: Connection, job: _Job) -> None:
    """Run the remaining revisions, each in a transaction of its own."""

    def steps(heads: tuple[str, ...], _context: MigrationContext) -> Iterator[Step]:
        for step in _remaining_steps(job, heads):
            job.interruption.check()
            connection.commit()  # the first time: Alembic has made its own table
            reset_session(connection)
            require_lock(connection)
            with job.report.timed(step.info) as applied:
                if applied.attempts == 1:
                    log.info("%s %s: %s.", applied.direction, applied.revision, applied.summary)
                own.begin()
                yield step  # Alembic runs and commits it before it resumes this generator
                own.end()
                job.blocked_since = None
                if connection.in_transaction():
                    raise FailedError(
                        "it ended its own transaction; what it has committed stays, and the rest is"
                        " lost; use a savepoint or an autocommit block in place of it, and run this"
                        " again."
                    )

    job.configure(connection=connection, fn=steps)
    with watch_transaction(connection) as own:
        context.run_migrations()
    connection.rollback()  # ends the transaction in which Alembic read its table


def _repair(connection: Connection, job: _Job) -> None:
    """Rebuild the committed schema's indexes that are invalid, if the database is at its revision.

    Before the revisions it is unknown which of them one builds or drops.
    """
    committed = verification.committed_schema()
    if not job.is_stamp and snapshot.revision(committed) == job.report.after:
        rebuild_invalid_indexes(connection, committed, log.warning)


def _verify(connection: Connection, job: _Job) -> None:
    """Compare what the history owns in the database with the history at its revision."""
    report = job.report
    reset_session(connection)
    with connection.begin():
        at = tuple(preflight.recorded_revisions(connection))
        report.after = at[0] if at else None
        expected = job.plan[-1].info.destination_revision_ids if job.plan else at
        if len(at) > 1 or (at != expected and not job.is_stamp):
            raise FailedError(
                f"The database is at {', '.join(at) or 'no revision'}, not at"
                f" {', '.join(expected) or 'no revision'}; run this again."
            )
        own = preflight.is_development(connection)
        schema = _compare(connection, job, report.after)
    if schema is None:
        return
    report.foreign = ignored.not_ignored(schema.objects.foreign, ignored.patterns(context.config))
    report.differing = list(schema.objects.differing)
    report.verified = not report.differing
    report.difference = schema.difference
    if report.differing:
        raise DifferentError(
            f"The database is at {report.after}, but its schema is not the history's: {schema}."
            f" `schema drift` shows what differs, and the SQL that undoes it{_ON_DEVELOPMENT[own]}."
            f"\n{schema.difference}".rstrip()
        )


def _compare(connection: Connection, job: _Job, revision: str | None) -> verification.Schema | None:
    with job.monitor.watch("The comparison of the schema"):
        return verification.compare(connection, revision)


def _plan(job: _Job, heads: tuple[str, ...]) -> list[Step]:
    try:
        start = () if job.command.get("purge") else heads
        return list(job.command["fn"](start, context.get_context()))
    except CommandError as error:
        named = job.command["destination_rev"]
        destination = named if isinstance(named, str) else ", ".join(named)
        if "://" in destination:  # a database URL in the wrong place, with its password
            destination = "that destination"
        raise CommandError(
            f"There is no path to {destination} from {', '.join(heads) or 'nothing'};"
            " `alembic history` lists the revisions."
        ) from error


def _remaining_steps(job: _Job, heads: tuple[str, ...]) -> list[Step]:
    """Return the planned steps that are not committed yet."""
    plan = job.plan or []
    if not plan or job.is_stamp:  # a stamp is one step, from any revision
        return plan
    places = [step.info.source_revision_ids for step in plan]
    places.append(plan[-1].info.destination_revision_ids)
    if heads not in places:
        raise FailedError(
            f"Another session has moved the database to {', '.join(heads) or 'no revision'}"
            " during this deploy; run this again."
        )
    return plan[places.index(heads) :]


def _connected(job: _Job) -> AbstractContextManager[Connection]:
    return connect_with_retry(job.engine, job.timeout, log.warning, job.interruption)


def _retry_lost_connection(job: _Job) -> Retrying:
    return Retrying(
        retry=retry_if_exception(
            lambda error: isinstance(error, LostError) and not job.interruption.arrived
        ),
        stop=stop_after_attempt(MAX_CONNECTIONS),
        before_sleep=lambda state: log.warning("%s; connecting again.", attempt_error(state)),
        reraise=True,
    )


def _retry_lock_failure(connection: Connection, job: _Job, monitor: LockMonitor) -> Retrying:
    def is_lock_failure(error: BaseException) -> bool:
        original = error.orig if isinstance(error, DBAPIError) else error
        return isinstance(original, RETRIED_ERRORS) and not job.interruption.arrived

    def exhausted(_state: RetryCallState) -> bool:
        if job.blocked_since is None:  # a concurrent statement has used up the time in one wait
            job.blocked_since = time.monotonic() - (monitor.last.seconds if monitor.last else 0)
        return job.remaining_seconds() <= LEAST_SECONDS

    def give_way(state: RetryCallState) -> None:
        seconds = state.next_action.sleep if state.next_action else 0
        monitor.statement = None
        waited = monitor.last or first_error_line(attempt_error(state))
        log.warning("%s; giving way, retrying in %.1f s.", waited, seconds)
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
    """Return `-x timeout-minutes` in seconds, and reject unknown options."""
    given = context.get_x_argument(as_dictionary=True)
    # The last two are read by the plugin behind `alembic check`.
    unknown = sorted(given.keys() - {"timeout-minutes", "report", "scratch-url", "postgres"})
    if unknown:
        raise CommandError("The only -x options are -x timeout-minutes=MINUTES and -x report=json.")
    if given.get("report", "json") != "json":
        raise CommandError("-x report takes only json: -x report=json.")
    try:
        minutes = float(given.get("timeout-minutes", TIMEOUT_MINUTES))
    except ValueError:
        minutes = -1
    if not 0 <= minutes <= MAX_TIMEOUT_MINUTES:
        raise CommandError(
            f"-x timeout-minutes takes a number from 0 to {MAX_TIMEOUT_MINUTES:g}: for example"
            " -x timeout-minutes=30."
        )
    return minutes * 60
