"""Print the deploy report and turn errors into a one-line message and an exit code."""

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from alembic import context
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from migrations.deploy.errors import DifferentError, FailedError, GaveUpError
from migrations.deploy.interruption import Interruption, interruptible
from migrations.deploy.lock_monitor import LockWait
from migrations.deploy.report import DeployReport
from migrations.deploy.statement import describe_sql
from migrations.postgres import first_error_line, visible

log = logging.getLogger("deploy")

_AFTER_A_FAILURE = (
    "The application goes on with the revision that the database has. Correct the failed revision,"
    " or revert what added it, and deploy again; unchanged, it fails again.\n"
)
_AFTER_A_WAIT = (
    "The application goes on with the revision that the database has. Wait for that session or end"
    " it, and run the same deploy again, perhaps with a longer -x timeout-minutes.\n"
)
_AFTER_A_WRONG_RECORD = (
    "alembic_version is probably wrong, and not the revision: the schema was exactly the one at"
    " {}. `schema drift` gives the SQL that records it; then deploy again.\n"
)

_INTERRUPTED = "Interrupted: committed revisions stay; run this again to continue."


@contextmanager
def report_outcome(report: DeployReport) -> Iterator[Interruption]:
    """Print the report as text or JSON, and turn an error into a message and an exit code.

    Alembic's own command line would print the message twice, once to standard output.

    Raises:
        CommandError: not on the command line: the deploy failed.
        KeyboardInterrupt: not on the command line: a signal interrupted the deploy.
        SystemExit: on the command line: 1 if the deploy failed, 2 if nothing was tried, 3 if the
            database is migrated but differs, 130 if a signal interrupted it.

    """
    options = context.config.cmd_opts
    as_json = "report=json" in context.get_x_argument()
    error: CommandError | KeyboardInterrupt | None = None
    code = 0
    with interruptible(keep=options is not None) as interruption:
        try:
            yield interruption
            interruption.check()
            interruption.ended = True
        except BaseException as raised:
            interruption.ended = True
            if interruption.arrived or isinstance(raised, KeyboardInterrupt):
                error, code = KeyboardInterrupt(_INTERRUPTED), 130
            elif isinstance(raised, SystemExit):
                exited = FailedError("it ended the program; remove that, and run this again.")
                error = to_command_error(exited.with_traceback(raised.__traceback__), report, None)
                code = 1
            elif isinstance(raised, CommandError):
                error, code = raised, _code(raised, report)
            elif isinstance(raised, DBAPIError | psycopg.Error):
                error = FailedError(f"The database raised an error: {first_error_line(raised)}.")
                code = 1
            else:
                raise
    report.end(None if error is None else str(error).partition("\n")[0])
    if as_json and (error is not None or report.server is not None):
        _print(report.document())
    elif report.server is not None and (error is None or report.revisions):
        _print(report.page())
    if error is not None and options is None:
        raise error
    if error is not None:
        after = _last_words(report, error) if code == 1 and report.current else ""
        sys.stderr.write(visible(f"FAILED: {error}\n{after}"))
        raise SystemExit(code)


def _print(text: str) -> None:
    """Print to standard output. That it is closed or full says nothing of the deploy's outcome."""
    config = context.config
    if config.messaging_opts.get("quiet"):
        return
    try:
        encoding = config.stdout.encoding or "utf-8"
        config.stdout.write(visible(text).encode(encoding, "replace").decode(encoding) + "\n")
        config.stdout.flush()
    except (AttributeError, OSError, ValueError) as error:  # there is none; it is full, or closed
        log.warning("The report could not be printed (%s).", error)
        sys.stdout = None  # at its end, Python would try to flush it again


def _last_words(report: DeployReport, error: BaseException) -> str:
    """Say what to do about a failed revision."""
    if isinstance(error, GaveUpError):
        return _AFTER_A_WAIT
    if report.schema_equals is not None:
        return _AFTER_A_WRONG_RECORD.format(report.schema_equals)
    return _AFTER_A_FAILURE


def _code(error: CommandError, report: DeployReport) -> int:
    if isinstance(error, DifferentError):
        return 3
    return 1 if isinstance(error, FailedError) or report.attempts else 2


def to_command_error(error: Exception, report: DeployReport, wait: LockWait | None) -> CommandError:
    """Describe in one sentence which revision failed, why, and the database's current revision.

    Raises:
        Exception: the error itself, if neither a revision nor the server caused it.

    """
    line = _line(error)
    if not line and not isinstance(error, CommandError | DBAPIError | psycopg.Error):
        raise error
    if report.current is None and isinstance(error, CommandError):
        return error
    if report.current is None:
        return FailedError(f"The database raised an error: {first_error_line(error)}.")
    stays = f"the database is at {report.after or 'no revision'}"
    revision = f"Revision {report.current} ({report.current_file}{line})"
    statement = getattr(error, "statement", None)
    of = f", in: {describe_sql(statement)}" if statement else ""
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, psycopg.errors.LockNotAvailable) and wait is not None:
        return GaveUpError(f"{revision} gave up waiting, and {stays}: {wait}.")
    if isinstance(original, NotImplementedError):
        return FailedError(f"{revision} cannot be reverted, and {stays}: {original}")
    if isinstance(error, CommandError):
        return FailedError(f"{revision} failed, and {stays}: {error}")
    kind = "" if isinstance(error, DBAPIError) else f"{type(error).__name__}: "
    return FailedError(f"{revision} failed, and {stays}: {kind}{first_error_line(error)}{of}.")


def _line(error: BaseException) -> str:
    """Return the line of the revision file in the traceback, or ''."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [one.lineno for one in frames if Path(one.filename).parent.name == "versions"]
    return f", line {lines[-1]}" if lines else ""
