"""The table of what each rival of `schema revision` makes of the changes, as Markdown."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from schema.text import pluralize
from tests.revision.rival_ground import Outcome

OURS = "schema revision"

_BEGIN = "<!-- begin rivals: python -m tests.revision.rivals --write -->"
_END = "<!-- end rivals -->"


@dataclass
class Column:
    """What a rival made of the changes."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """By the name of the change."""
    alarms: int = 0
    """Operations that it finds on the unchanged schema."""
    stirred: list[str] = field(default_factory=list)
    """The statements that change no schema, and in which it finds something."""

    def cell(self, names: Sequence[str]) -> str:
        """Count `detected / repaired / kept`."""
        found = [self.outcomes[one] for one in names]
        counts = (
            sum(one.detected for one in found),
            sum(one.repaired for one in found),
            sum(one.kept for one in found),
        )
        return " / ".join(map(str, counts))

    @property
    def crashes(self) -> int:
        """How many runs ended with an error."""
        return sum(one.crashes for one in self.outcomes.values())

    @property
    def losses(self) -> int:
        """How many upgrades lost values, whether they led to the schema or not."""
        return sum(one.lost for one in self.outcomes.values())

    @property
    def asked(self) -> int:
        """How many changes needed a decision."""
        return sum(one.asked for one in self.outcomes.values())


@dataclass
class Table:
    """Everything that was measured."""

    server: str
    """PostgreSQL's version."""
    versions: Mapping[str, str]
    """Of the rivals' packages."""
    columns: dict[str, Column]
    unchanged: int
    """How many statements that change no schema were tried."""
    left_out: Sequence[str]
    missing: int = 0
    """How many changes were not tried."""

    def text(self) -> str:
        """Write it."""
        names = list(next(iter(self.columns.values())).outcomes)
        kinds: dict[str, list[str]] = {}
        for name in names:
            kinds.setdefault(name.partition(":")[0], []).append(name)
        lines = [
            f"| kind | changes | {' | '.join(self.columns)} |",
            "|---|--:|" + "--:|" * len(self.columns),
            *(self._row(kind, found) for kind, found in kinds.items()),
            self._row("**all**", names),
            "",
            *self._notes(),
        ]
        return "\n".join(lines) + "\n"

    def _row(self, kind: str, names: Sequence[str]) -> str:
        cells = " | ".join(column.cell(names) for column in self.columns.values())
        return f"| {kind} | {len(names)} | {cells} |"

    def _notes(self) -> list[str]:
        packages = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        ours = self.columns[OURS]
        notes = [
            f"PostgreSQL {self.server}; {packages}.",
            f"False alarms on the unchanged schema: {self._each(lambda one: one.alarms)}; on"
            f" {self.unchanged} statements that change no schema:"
            f" {self._each(lambda one: len(one.stirred))}.",
            f"Runs that ended with an error: {self._each(lambda one: one.crashes)}.",
            f"Upgrades that lost values: {self._each(lambda one: one.losses)}.",
            f"`{OURS}` asked for a decision in {pluralize(ours.asked, 'change')}.",
        ]
        if self.missing:
            notes.append(f"Of the changes, {self.missing} were not tried.")
        if self.left_out:
            count = pluralize(len(self.left_out), "object")
            notes.append(
                f"Left out, because a package fails on them although nothing differs: {count}."
            )
        return [f"* {one}" for one in notes]

    def _each(self, count: Callable[[Column], int]) -> str:
        return ", ".join(f"{name} {count(column)}" for name, column in self.columns.items())


def write(path: Path, text: str) -> None:
    """Replace the table between the markers of a file."""
    before = path.read_text(encoding="utf-8")
    pattern = f"(?<={re.escape(_BEGIN)}\n).*?(?={re.escape(_END)})"
    after, count = re.subn(pattern, lambda _: f"\n{text}\n", before, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{path.name} has no place for the table.")
    path.write_text(after, encoding="utf-8")
