"""What every command prints with: consoles, JSON documents, coloured differences, progress."""

import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

DOCUMENT_VERSION = 1
"""Raised when a field of a document changes its meaning or goes away; new ones may come."""

_COLOURS = {"-": "red", "+": "green"}


def console(*, stderr: bool = False) -> Console:
    """Write to a terminal in colour and to its width, to a pipe in plain lines of any length."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # not every encoding has a ✓
    made = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not made.is_terminal:
        made.width = 200
    return made


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is being done; print nothing to a pipe."""
    if not sys.stderr.isatty():
        yield lambda _what: None
        return
    with console(stderr=True).status("server") as status:
        yield status.update


def json_document(fields: Sequence[str], **known: object) -> str:
    """Lay out every field, in that order; what is not known is null.

    In ASCII, which every encoding of standard output can write.
    """
    whole = {"version": DOCUMENT_VERSION} | {name: known.get(name) for name in fields}
    return json.dumps(whole, indent=2)


def coloured(difference: str) -> list[Text]:
    """Lay a difference out, its '-' lines in red and its '+' lines in green."""
    return [
        Text.assemble("    ", (line, _COLOURS.get(line[:1], "")))
        for line in difference.splitlines()
    ]
