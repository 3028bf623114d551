"""What `schema check` prints: a page to be read at a glance, or a document for machines."""

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from schema.text import pluralize

from schema.checks.result import Check

DOCUMENT_VERSION = 1
"""Raised when a field of the document changes its meaning or goes away; new ones may come."""

_COLOURS = {"-": "red", "+": "green"}


@dataclass(frozen=True)
class Result:
    """Everything that a run of the check found."""

    proofs: Sequence[Check]
    server: str
    """The server's version, such as 18.4."""
    head: str | None
    """The head revision, where there is one."""
    seconds: float
    """How long everything took, ..."""
    starting: float
    """... and how much of it the server took to start."""

    @property
    def holds(self) -> bool:
        """Whether every proof was tried and holds."""
        return all(holds(proof) for proof in self.proofs)


def holds(proof: Check) -> bool | None:
    """Whether the proof holds; None when it was not tried."""
    return None if proof.outcome is None else not proof.outcome.failures


def document(result: Result) -> str:
    """Lay the result out for machines; README.md describes the fields."""
    proofs = [
        {
            "name": proof.name,
            "holds": holds(proof),
            "seconds": round(proof.seconds, 3),
            "covered": proof.outcome.covered if proof.outcome else None,
            "failures": [vars(one) for one in proof.outcome.failures] if proof.outcome else [],
        }
        for proof in result.proofs
    ]
    return _document(
        holds=result.holds,
        head=result.head,
        server=result.server,
        seconds=round(result.seconds, 3),
        starting_seconds=round(result.starting, 3),
        proofs=proofs,
    )


def refusal(sentence: str) -> str:
    """Say for machines why the proofs could not be tried."""
    return _document(error=sentence, proofs=[])


def _document(**known: object) -> str:
    fields = ("holds", "error", "head", "server", "seconds", "starting_seconds", "proofs")
    return document_of(fields, **known)


def document_of(fields: Sequence[str], **known: object) -> str:
    """Lay out every field, in that order; what is not known is null.

    In ASCII, which every encoding of standard output can write.
    """
    whole = {"version": DOCUMENT_VERSION} | {name: known.get(name) for name in fields}
    return json.dumps(whole, indent=2)


def page(result: Result, *, only_failures: bool = False) -> Group:
    """Lay the proofs out as a table, what failed below it, and the verdict at the end."""
    title = f"The schema at {result.head or 'no single head'}, on PostgreSQL {result.server}"
    table = () if only_failures else (Text(title, "bold"), Text(), _table(result.proofs))
    return Group(*table, *_failures(result.proofs), Text(), _verdict(result))


def console(*, stderr: bool = False) -> Console:
    """Write to a terminal in colour and to its width, to a pipe in plain lines of any length."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # not every encoding has a ✓
    made = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not made.is_terminal:
        made.width = 200
    return made


def _table(proofs: Sequence[Check]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("", "proof", "what it covered"):
        table.add_column(heading)
    table.add_column("time", justify="right")
    for proof in proofs:
        if proof.outcome is None:
            table.add_row("-", proof.name, Text("not tried: an earlier proof failed", "dim"), "")
            continue
        mark = Text("✓ holds", "green") if holds(proof) else Text("✗ failed", "bold red")
        table.add_row(mark, proof.name, proof.outcome.covered, f"{proof.seconds:.2f} s")
    return table


def _failures(proofs: Sequence[Check]) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for proof in proofs:
        for failure in proof.outcome.failures if proof.outcome else ():
            lines += [Text(), Text(f"✗ {proof.name}: {failure.message}", style="bold red")]
            lines += coloured(failure.detail)
            lines.append(Text(f"  → {failure.remedy}"))
    return lines


def coloured(difference: str) -> list[Text]:
    """Lay a difference out, its '-' lines in red and its '+' lines in green."""
    return [
        Text.assemble("    ", (line, _COLOURS.get(line[:1], "")))
        for line in difference.splitlines()
    ]


def _verdict(result: Result) -> Text:
    number = pluralize(len(result.proofs), "proof")
    time = f"{result.seconds:.1f} s, of which {result.starting:.1f} s to start the server"
    if result.holds:
        return Text(f"All {number} hold ({time}).", style="bold green")
    failed = sum(not holds(proof) for proof in result.proofs)
    return Text(f"{failed} of {number} did not hold ({time}).", style="bold red")
