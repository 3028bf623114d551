"""The tables that a change affects: as data, and as a diagram in Mermaid, which GitHub draws."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from migrations.snapshot import Snapshot
from schema.review.result import Column, Diagram, Mark, Reference, Table

MOST_TABLES = 20
"""In one diagram: with more, GitHub draws them too small to read."""
_MOST_NAME, _MOST_LABEL = 80, 160
"""Characters of a name and of a label: PostgreSQL's names have at most 63 bytes."""

_NAME = r'(?:"(?:[^"]|"")*"|[^\s",().]+)'
_TABLE = rf"{_NAME}(?:\.{_NAME})?"
_PRIMARY_KEY = re.compile(r"PRIMARY KEY \((?P<columns>.*?)\)(?: |$)")
_FOREIGN_KEY = re.compile(
    rf"FOREIGN KEY \((?P<columns>{_NAME}(?:, {_NAME})*)\) REFERENCES (?P<target>{_TABLE})\("
)
# Mermaid 11 takes these words for keys, and these anywhere in a line for a layout.
_KEYWORDS = {"PK", "FK", "UK"}
_DIRECTION = re.compile(r"(direction)\s+(?=TB|BT|RL|LR)", re.IGNORECASE)


class _Definition(NamedTuple):
    """A table of one snapshot: the definitions of its columns, and its keys."""

    columns: dict[str, str]
    primary: frozenset[str]
    references: dict[str, Reference]
    facts: frozenset[tuple[str, str]]


_ABSENT = _Definition({}, frozenset(), {}, frozenset())


def affected(before: Snapshot, after: Snapshot) -> Diagram:
    """Return the tables of which a fact changed, and those that they reference.

    When there are more than MOST_TABLES, added and removed tables go first, then changed ones.
    """
    old, new = _definitions(before), _definitions(after)
    marks: dict[str, Mark] = {}
    for name in sorted(old.keys() | new.keys()):
        marks[name] = _mark(old.get(name), new.get(name))
    referenced = {
        one.target
        for name, mark in marks.items()
        if mark
        for side in (old, new)
        for one in side.get(name, _ABSENT).references.values()
    }
    chosen = [name for name, mark in marks.items() if mark or name in referenced]
    chosen.sort(key=lambda name: ("added", "removed", "changed", "").index(marks[name]))
    shown = sorted(chosen[:MOST_TABLES])
    tables, references = [], []
    for name in shown:
        was, now = old.get(name, _ABSENT), new.get(name, _ABSENT)
        tables.append(Table(name, tuple(_columns(was, now)), marks[name]))
        references += [one for one in _references(was, now) if one.target in shown]
    return Diagram(tuple(tables), tuple(references), len(chosen) - len(shown))


def mermaid(diagram: Diagram) -> str:
    """Write an `erDiagram`, without its fence; "" for a diagram without tables.

    Changes are marked in the names of tables and in the comments of columns. What Mermaid cannot
    read in a name becomes `_`; a column's comment then has more of it.
    """
    if not diagram.tables:
        return ""
    ids = {table.name: f"t{number}" for number, table in enumerate(diagram.tables, 1)}
    lines = ["erDiagram"]
    for table in diagram.tables:
        lines.append(
            f'    {ids[table.name]}["{_label(_marked(plain(table.name), table.mark))}"] {{'
        )
        lines += [f"        {_attribute(column)}" for column in table.columns]
        lines.append("    }")
    for one in diagram.references:
        if one.table in ids and one.target in ids:
            label = _label(_marked(one.columns, one.mark))
            lines.append(f'    {ids[one.target]} ||--o{{ {ids[one.table]} : "{label}"')
    return "\n".join(lines)


def plain(name: str) -> str:
    """Remove the quotes of a name: `"user"` is shown as `user`."""
    return re.sub(r'"((?:[^"]|"")*)"', lambda match: match[1].replace('""', '"'), name)


def _attribute(column: Column) -> str:
    name = _word(plain(column.name))
    words = [] if name == plain(column.name) else [plain(column.name)]
    comment = _label(", ".join([*words, *([column.mark] if column.mark else [])]))
    parts = [_word(column.type), name, column.key, f'"{comment}"' if comment else ""]
    return " ".join(filter(None, parts))


def _marked(name: str, mark: Mark) -> str:
    return f"{name} ({mark})" if mark else name


def _word(text: str) -> str:
    word = "".join(one if _is_safe(one) or one in "()[]" else "_" for one in text[:_MOST_NAME])
    if not word[:1].isalpha() or word.upper() in _KEYWORDS:
        word = f"_{word}"
    return word


def _label(text: str) -> str:
    text = text if len(text) <= _MOST_LABEL else f"{text[:_MOST_LABEL]}..."
    safe = "".join(one if _is_safe(one) or one in " ()[].,+=/" else "_" for one in text)
    return _DIRECTION.sub(r"\1_", safe).strip()


def _is_safe(one: str) -> bool:
    """Whether Mermaid reads a character in a word: its ranges end at U+FFFF."""
    return (
        one == "_"
        or (one.isascii() and one.isalnum())
        or ("\u00c0" <= one <= "\uffff" and one.isalpha())
    )


def _definitions(snapshot: Snapshot) -> dict[str, _Definition]:
    parts: dict[str, list[tuple[str, str]]] = {}
    for fact in snapshot:
        kind, _, name = fact.object.partition(" ")
        if kind == "table":
            parts.setdefault(name, []).append((fact.part, fact.definition))
    return {name: _definition(name, facts) for name, facts in parts.items()}


def _definition(table: str, facts: list[tuple[str, str]]) -> _Definition:
    columns: dict[str, str] = {}
    primary: set[str] = set()
    references: dict[str, Reference] = {}
    for part, definition in facts:
        kind, _, name = part.partition(" ")
        if kind == "column":
            columns[name] = definition
        elif kind == "constraint" and (found := _PRIMARY_KEY.match(definition)):
            primary.update(re.findall(_NAME, found["columns"]))
        elif kind == "constraint" and (found := _FOREIGN_KEY.match(definition)):
            references[name] = Reference(table, found["columns"], found["target"])
    return _Definition(columns, frozenset(primary), references, frozenset(facts))


def _mark(old: object, new: object) -> Mark:
    if old == new:
        return ""
    if old is None:
        return "added"
    return "removed" if new is None else "changed"


def _columns(was: _Definition, now: _Definition) -> Iterator[Column]:
    current = now if now.columns else was
    foreign = {
        name for one in current.references.values() for name in re.findall(_NAME, one.columns)
    }
    names = was.columns.keys() | now.columns.keys()
    for name in sorted(names, key=lambda name: (name not in current.primary, plain(name))):
        definition = now.columns.get(name, was.columns.get(name, ""))
        keys = [
            word for word, columns in (("PK", current.primary), ("FK", foreign)) if name in columns
        ]
        whole = was is not _ABSENT and now is not _ABSENT
        mark = _mark(was.columns.get(name), now.columns.get(name)) if whole else ""
        yield Column(name, definition.partition("  ")[0], ", ".join(keys), mark)


def _references(was: _Definition, now: _Definition) -> Iterator[Reference]:
    for name in sorted(was.references.keys() | now.references.keys()):
        one = now.references.get(name) or was.references[name]
        mark = _mark(was.references.get(name), now.references.get(name))
        yield Reference(one.table, one.columns, one.target, mark)
