"""`schema revision`: write the revisions that bring the history to the models."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module

import typer
from sqlalchemy import MetaData

from schema.cli.exits import exit_codes
from schema.cli.output import progress
from schema.errors import CannotRunError
from schema.postgres.connection import describe_error
from schema.postgres.scratch import open_server
from schema.revision.author import Request, Servers, Written, report, write
from schema.revision.decisions import Answers, Taken, UndecidedError

_PROMPTS: dict[Taken, str] = {
    "losses": "Drop {}, because",
    "conversions": "{} becomes (an expression of the old value)",
    "fills": "{} gets (an expression of the row)",
    "rewrites": "Write every row of {} anew at once, because",
}


def run(message: str, why: str | None, answers: Answers, server: tuple[str | None, str]) -> None:
    """Write them, refresh the generated files, and print what was done.

    On a terminal, what is undecided is asked; without an answer nothing is written.
    """
    with exit_codes():
        title = message.strip().rstrip(".")
        if not title[:1].isalpha():
            raise CannotRunError('Say what the revision does: -m "Add todo.priority".')
        request = Request(title[0].upper() + title[1:], why, answers)
        try:
            with progress() as show:
                done = _written(request, server, show)
        except UndecidedError as error:
            request = replace(request, answers=_asked(error, answers))
            with progress() as show:
                done = _written(request, server, show)
    typer.echo(report(done))


def _asked(undecided: UndecidedError, answers: Answers) -> Answers:
    """Ask on the terminal.

    Raises:
        UndecidedError: the same one: there is no terminal, or only another model decides.
        CannotRunError: there is no answer.
        KeyboardInterrupt: Ctrl-C.

    """
    takes = [one.takes for one in undecided.questions]
    if not takes or None in takes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise undecided
    typer.echo(f"{undecided}\nAnswer here, or press Enter to write nothing.", err=True)
    found: dict[Taken, dict[str, str]] = {}
    for one in undecided.questions:
        if one.takes is None:
            continue
        label = _PROMPTS[one.takes].format(one.about)
        try:
            given = typer.prompt(label, default="", show_default=False, err=True).strip()
        except typer.Abort:
            raise KeyboardInterrupt from None
        if not given:
            raise CannotRunError("Nothing is written.")
        found.setdefault(one.takes, {})[one.about] = given
    return Answers(
        losses={**answers.losses, **found.get("losses", {})},
        conversions={**answers.conversions, **found.get("conversions", {})},
        fills={**answers.fills, **found.get("fills", {})},
        rewrites={**answers.rewrites, **found.get("rewrites", {})},
    )


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
