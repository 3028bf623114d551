"""The corpus of migrations, read from its files; corpus/README.md explains them."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from pglast import split

FOLDER = Path(__file__).parent / "corpus"
LABELS = (
    "locks", "rewrites", "scans", "writes", "held", "several", "invalid", "loses", "access",
    "breaks", "fails", "reversible",
)  # fmt: skip
HAZARDS = {
    "rewrite": ("rewrites", None),
    "scan": ("scans", None),
    "backfill": ("writes", None),
    "held": ("held", None),
    "several": ("several", None),
    "loses": ("loses", None),
    "access": ("access", "widened"),
    "breaks": ("breaks", None),
    "fails": ("fails", None),
    "invalid": ("invalid", "left"),
    "irreversible": ("reversible", "no"),
}
"""The kinds of hazards: a label, and the value that it must have; None for any."""

_HEADLINE = re.compile(r"^-- (?P<name>.+) \[(?P<remarks>.+)\]\n", re.MULTILINE)
_LABEL = re.compile(r"^-- (?:on (?P<version>\d+): )?(?P<label>\w+): (?P<values>.+)\n", re.MULTILINE)

type Labels = dict[str, frozenset[str]]
"""The values of each label that has any."""


@dataclass(frozen=True)
class Transaction:
    """Statements that are committed together."""

    statements: tuple[str, ...]
    alone: bool
    """Whether this is one statement that the migration runs outside BEGIN and COMMIT."""


@dataclass(frozen=True)
class Migration:
    """One migration of the corpus."""

    name: str
    hazard: str | None
    """The kind of its hazard; None for a safe one."""
    since: int
    """The oldest major version that has it."""
    source: str
    """The section of PostgreSQL's documentation that the labels are taken from."""
    transactions: tuple[Transaction, ...]
    _labels: Labels
    _of_versions: dict[int, Labels] = field(default_factory=dict)

    def labels(self, version: int) -> Labels:
        """Return its labels on a major version."""
        return self._labels | self._of_versions.get(version, {})


def migrations() -> list[Migration]:
    """Read all migrations, in the order of their files."""
    return [
        _migration(*piece)
        for path in sorted(FOLDER.glob("*.sql"))
        if path.name not in {"base.sql", "application.sql"}
        for piece in _pieces(path.read_text(encoding="utf-8"))
    ]


def script(name: str) -> str:
    """Return the text of another file of the folder."""
    return (FOLDER / name).read_text(encoding="utf-8")


def statements(sql: str) -> tuple[str, ...]:
    """Split a script; without the parser, which may be older than the server."""
    return tuple(str(one) for one in split(sql, with_parser=False))


def _pieces(text: str) -> list[tuple[re.Match[str], str]]:
    heads = list(_HEADLINE.finditer(text))
    ends = [*(head.start() for head in heads[1:]), len(text)]
    return [(head, text[head.end() : end]) for head, end in zip(heads, ends, strict=True)]


def _migration(head: re.Match[str], body: str) -> Migration:
    """Read one migration: its headline, and the lines below it."""
    remarks = head["remarks"].split(", ")
    common: Labels = {}
    of_versions: dict[int, Labels] = {}
    source = ""
    for found in _LABEL.finditer(body):
        if found["label"] == "from":
            source = found["values"]
            continue
        if found["label"] not in LABELS:
            raise ValueError(f"{head['name']}: there is no label {found['label']}")
        version = found["version"]
        target = of_versions.setdefault(int(version), {}) if version else common
        target[found["label"]] = frozenset(found["values"].split(", ")) - {"none"}
    since = [int(one.removeprefix("since ")) for one in remarks if one.startswith("since ")]
    return Migration(
        name=head["name"],
        hazard=_hazard(head["name"], remarks[0]),
        since=max(since, default=0),
        source=source,
        transactions=_transactions(statements(_LABEL.sub("", body))),
        _labels=common,
        _of_versions=of_versions,
    )


def _hazard(name: str, verdict: str) -> str | None:
    if verdict == "safe":
        return None
    kind = verdict.removeprefix("hazard: ")
    if kind not in HAZARDS:
        raise ValueError(f"{name}: there is no verdict {verdict}")
    return kind


def _transactions(script: tuple[str, ...]) -> tuple[Transaction, ...]:
    """Group statements by BEGIN and COMMIT."""
    found: list[Transaction] = []
    opened: list[str] | None = None
    for statement in script:
        if statement == "BEGIN":
            opened = []
        elif statement == "COMMIT":
            found.append(Transaction(tuple(opened or ()), alone=False))
            opened = None
        elif opened is None:
            found.append(Transaction((statement,), alone=True))
        else:
            opened.append(statement)
    return tuple(found)
