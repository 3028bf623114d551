"""How a deploy ends: a report, and where something went wrong one sentence and an exit code."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from alembic import context
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from migrations.deploy.activity import describe_sql
from migrations.deploy.errors import FailedError
from migrations.deploy.interruption import Interruption, interruptible
from migrations.deploy.lock_monitor import LockWait
from migrations.deploy.report import DeployReport
from migrations.postgres import first_error_line

_INTERRUPTED = "Interrupted: what was committed stays; run this again to go on."


@contextmanager
def report_outcome(report: DeployReport) -> Iterator[Interruption]:
    """Print the report, as text or JSON, and on the command line the sentence of what went wrong.

    Alembic's own command line would print the sentence twice, one of them to standard output.

    Raises:
        CommandError: as it was raised, where Alembic was called by a program.
        KeyboardInterrupt: it was interrupted, by Ctrl-C or SIGTERM, where Alembic was called by a
            program.
        SystemExit: on the command line: 2 when it refused to begin, 1 when it failed, 130 when it
            was interrupted.

    """
    options = context.config.cmd_opts
    as_json = "report=json" in context.get_x_argument()
    error: CommandError | KeyboardInterrupt | None = None
    code = 0
    with interruptible() as interruption:
        try:
            yield interruption
            interruption.check()
        except BaseException as raised:
            if interruption.arrived or isinstance(raised, KeyboardInterrupt):
                error, code = KeyboardInterrupt(_INTERRUPTED), 130
            elif isinstance(raised, SystemExit):
                error = FailedError("A revision ended the program: what was committed stays.")
                code = 1
            elif isinstance(raised, CommandError):
                error = raised
                code = 1 if isinstance(raised, FailedError) or report.attempts else 2
            elif isinstance(raised, DBAPIError | psycopg.Error):
                error = FailedError(f"The server ended the work: {first_error_line(raised)}.")
                code = 1
            else:
                raise
    report.end(None if error is None else str(error).partition("\n")[0])
    if as_json and (error is not None or report.server is not None):
        context.config.print_stdout("%s", report.document())
    elif report.server is not None and (error is None or report.revisions):
        context.config.print_stdout("%s", report.page())
    if error is not None and options is None:
        raise error
    if error is not None:
        sys.stderr.write(f"FAILED: {error}\n")
        raise SystemExit(code)


def to_command_error(error: Exception, report: DeployReport, wait: LockWait | None) -> CommandError:
    """Say in one sentence which revision failed, where and why, and where the database now is.

    Raises:
        Exception: the error itself, when no revision had to do with it.

    """
    where = _where(error)
    if isinstance(error, CommandError) and (report.current is None or not where):
        return error
    if not isinstance(error, DBAPIError | psycopg.Error) and not where:
        raise error
    if report.current is None:
        return FailedError(f"The server ended the work: {first_error_line(error)}.")
    stays = f"the database is at {report.after or 'no revision'}"
    revision = f"Revision {report.current}{where}"
    statement = getattr(error, "statement", None)
    of = f", in: {describe_sql(statement)}" if statement else ""
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, psycopg.errors.LockNotAvailable) and wait is not None:
        return FailedError(f"{revision} gave up waiting, and {stays}: {wait}.")
    if isinstance(original, NotImplementedError):
        return FailedError(f"{revision} cannot be undone, and {stays}: {original}")
    kind = "" if isinstance(error, DBAPIError | CommandError) else f"{type(error).__name__}: "
    return FailedError(f"{revision} failed, and {stays}: {kind}{first_error_line(error)}{of}.")


def _where(error: BaseException) -> str:
    """Name the file and line of a revision that the error came through."""
    found = ""
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.parent.name == "versions":
            found = f" ({path.name}, line {frame.lineno})"
    return found
