"""Exit codes: 0 success, 1 problems found and printed, 2 the command could not run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from schema.errors import CannotRunError, TerminatedError

if TYPE_CHECKING:
    from rich.console import Group


@contextmanager
def exit_codes(error_document: Callable[[str], str] | None = None) -> Iterator[None]:
    """Turn an error in the block into one sentence on standard error and an exit code.

    `error_document` formats the sentence as JSON for standard output.

    Raises:
        Exit: 143 after SIGTERM, 130 after Ctrl-C, 2 after an expected error.
        Exception: any other error: it is a bug.

    """
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:
        if (code := _interrupted(error)) is not None:
            raise typer.Exit(code) from None
        message = _message(error)
        if message is None:
            raise
        typer.echo(f"schema: {message}", err=True)
        if error_document is not None:
            typer.echo(error_document(message))
        raise typer.Exit(2) from None


def _interrupted(error: BaseException) -> int | None:
    """Return the exit code of a signal, also of one during whose clean-up the error was raised."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, TerminatedError):
            return 143
        if isinstance(seen, KeyboardInterrupt):
            return 130
        seen = seen.__cause__ or seen.__context__
    return None


def print_result(shown: "str | Group", *, ok: bool) -> None:
    """Print a JSON document or a page.

    Raises:
        Exit: 1 if not `ok`.

    """
    from schema.cli.output import console  # noqa: PLC0415  # rich is slow to import

    if isinstance(shown, str):
        typer.echo(shown)
    else:
        console().print(shown)
    if not ok:
        raise typer.Exit(1)


def _message(error: BaseException) -> str | None:
    """Return the one-sentence message of an expected error, None for a bug."""
    # Each is slow to import, and `schema --help` must be fast.
    import psycopg  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415

    from migrations.postgres import first_error_line  # noqa: PLC0415

    if isinstance(error, CannotRunError | CommandError):
        return str(error)
    if isinstance(error, DBAPIError | psycopg.Error):
        return f"The database raised an error: {first_error_line(error)}."
    return None
