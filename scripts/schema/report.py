"""The page that a person reads at a glance: each proof, what it covered, and its time."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .check import Proof
from .proof import counted

_COLOURS = {"-": "red", "+": "green"}


def page(
    proofs: Sequence[Proof], version: str, head: str | None, seconds: float, starting: float
) -> Group:
    """Lay out the proofs as a table, what failed below it, and the verdict at the end.

    `seconds` is the time that everything took, `starting` what the server took of it.
    """
    return Group(
        Text(f"The schema at {head or 'no single head'}, on PostgreSQL {version}", style="bold"),
        Text(),
        _table(proofs),
        *_failures(proofs),
        Text(),
        _verdict(proofs, f"{seconds:.1f} s, of which {starting:.1f} s to start the server"),
    )


def console(*, stderr: bool = False) -> Console:
    """Write to a terminal in colour and to its width, to a pipe in plain lines of any length."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not made.is_terminal:
        made.width = 200
    return made


def _table(proofs: Sequence[Proof]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("", "proof", "what it covered"):
        table.add_column(heading)
    table.add_column("time", justify="right")
    for proof in proofs:
        if proof.outcome is None:
            table.add_row("-", proof.name, Text("not tried: an earlier proof failed", "dim"), "")
            continue
        failed = bool(proof.outcome.failures)
        mark = Text("✗ failed", "bold red") if failed else Text("✓ holds", "green")
        table.add_row(mark, proof.name, proof.outcome.covered, f"{proof.seconds:.2f} s")
    return table


def _failures(proofs: Sequence[Proof]) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for proof in proofs:
        for failure in proof.outcome.failures if proof.outcome else ():
            lines += [Text(), Text(f"✗ {proof.name}: {failure.message}", style="bold red")]
            lines += [
                Padding(Text(line, _COLOURS.get(line[:1], "")), (0, 0, 0, 4), expand=False)
                for line in failure.detail.splitlines()
            ]
            lines.append(Text(f"  → {failure.remedy}"))
    return lines


def _verdict(proofs: Sequence[Proof], time: str) -> Text:
    failed = [proof for proof in proofs if proof.outcome is None or proof.outcome.failures]
    if failed:
        text = f"{len(failed)} of {counted(len(proofs), 'proof')} did not hold ({time})."
        return Text(text, style="bold red")
    return Text(f"All {counted(len(proofs), 'proof')} hold ({time}).", style="bold green")
