"""`schema revision`: write the revisions that bring the history to the models."""

import re
from collections.abc import Callable, Sequence
from importlib import import_module

import typer
from sqlalchemy import MetaData

from schema.cli.exits import exit_codes
from schema.cli.output import progress
from schema.errors import CannotRunError
from schema.postgres.connection import describe_error
from schema.postgres.scratch import open_server
from schema.revision.author import Request, Servers, Written, report, write
from schema.revision.decisions import Answers


def run(message: str, why: str | None, answers: Answers, server: tuple[str | None, str]) -> None:
    """Write them, refresh the generated files, and print what was done."""
    with exit_codes(), progress() as show:
        title = message.strip().rstrip(".")
        if not title[:1].isalpha():
            raise CannotRunError('Say what the revision does: -m "Add todo.priority".')
        request = Request(title[0].upper() + title[1:], why, answers)
        done = _written(request, server, show)
    typer.echo(report(done))


def given(option: str, values: Sequence[str]) -> dict[str, str]:
    """Read values of the form NAME=TEXT.

    Raises:
        CannotRunError: one has another form.

    """
    found = {}
    for value in values:
        name, separator, text = value.partition("=")
        if not separator or not name.strip() or not text.strip():
            raise CannotRunError(f"{option} takes TABLE=… or TABLE.COLUMN=…, each with a text.")
        found[name.strip()] = text.strip()
    return found


def _written(
    request: Request, server: tuple[str | None, str], show: Callable[[str], None]
) -> Written:
    with open_server(*server, show) as history, open_server(*server, show) as other:
        return write(Servers(history, other), [_metadata()], request, show)


def _metadata() -> MetaData:
    try:
        metadata: MetaData = import_module("models").metadata
    except (Exception, SystemExit) as error:  # a model may raise whatever it likes
        what = re.sub(r"://[^@\s]*@", "://…@", describe_error(error))
        raise CannotRunError(f"The models cannot be imported: {what}; fix them.") from error
    return metadata
