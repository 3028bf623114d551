"""Exit codes: 0 all is well, 1 something is wrong and was shown, 2 refused in one sentence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from schema.errors import CannotRunError, TerminatedError

if TYPE_CHECKING:
    from rich.console import Group


@contextmanager
def exit_codes(refusal: Callable[[str], str] | None = None) -> Iterator[None]:
    """Turn an error in the block into one sentence on standard error and an exit code.

    `refusal` makes a JSON document of the sentence, for standard output.
    """
    try:
        yield
    except TerminatedError:
        raise typer.Exit(143) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        typer.echo(f"schema: {sentence}", err=True)
        if refusal is not None:
            typer.echo(refusal(sentence))
        raise typer.Exit(2) from None


def answer(shown: "str | Group", *, good: bool) -> None:
    """Print a JSON document or a page, and exit with 1 when it is not good."""
    from schema.cli.output import console  # noqa: PLC0415  # rich is slow to import

    if isinstance(shown, str):
        typer.echo(shown)
    else:
        console().print(shown)
    if not good:
        raise typer.Exit(1)


def _sentence(error: Exception) -> str | None:
    """Say in one sentence why a command could not do its work; None for a bug."""
    # Imported only now: each takes longer than `schema --help` may.
    import psycopg  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415

    from migrations.postgres import first_error_line  # noqa: PLC0415

    if isinstance(error, CannotRunError | CommandError):
        return str(error)
    if isinstance(error, DBAPIError | psycopg.Error):
        return f"The server ended the work: {first_error_line(error)}."
    return None
