"""Printing for all commands: consoles, JSON documents, coloured differences, progress."""

import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from migrations.postgres import visible

DOCUMENT_VERSION = 2
"""Increased when a field is removed or changes its meaning, not when one is added."""

_COLOURS = {"-": "red", "+": "green"}


def console(*, stderr: bool = False) -> Console:
    """Return a console: coloured and wrapped on a terminal, plain long lines on a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # not every encoding has a ✓
    result = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not result.is_terminal:
        result.width = 200
    return result


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the current step on a terminal, and nothing on a pipe."""
    if not sys.stderr.isatty():
        yield lambda _step: None
        return
    with console(stderr=True).status("server") as status:
        yield status.update


def json_document(fields: Sequence[str], **values: object) -> str:
    """Format the fields as JSON in their order; a field without a value is null.

    The text is ASCII, which every encoding of standard output can write.
    """
    document = {"version": DOCUMENT_VERSION} | {name: values.get(name) for name in fields}
    return json.dumps(document, indent=2)


def coloured(difference: str) -> list[Text]:
    """Format a difference with '-' lines in red and '+' lines in green."""
    return [
        Text.assemble("    ", (line, _COLOURS.get(line[:1], "")))
        for line in visible(difference).splitlines()
    ]
