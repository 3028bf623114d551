"""Read a database's schema as sorted facts, lay it out for people, say how two schemas differ.

The facts come from one catalog query, snapshot.sql. Its committed result at the head revision is
schema.txt. A deploy has only that text to compare with, so every difference is one of two texts.
"""

from difflib import unified_diff
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection

QUERY = Path(__file__).with_name("snapshot.sql").read_text(encoding="utf-8")

BOOKKEEPING = "to_regclass('public.alembic_version')"
"""How the query names Alembic's own table, to leave it out."""

# Whatever changes how PostgreSQL prints a definition. pg_temp is named to come last: a session's
# temporary tables otherwise come first, and take the short name from a table in public. Compiling
# the query would cost more than running it, hence no JIT.
PINS = """
    SET LOCAL search_path = public, pg_temp;
    SET LOCAL quote_all_identifiers = off;
    SET LOCAL standard_conforming_strings = on;
    SET LOCAL datestyle = 'ISO';
    SET LOCAL intervalstyle = 'postgres';
    SET LOCAL timezone = 'UTC';
    SET LOCAL extra_float_digits = 1;
    SET LOCAL bytea_output = 'hex';
    SET LOCAL lc_monetary = 'C';
    SET LOCAL jit = off;
"""

# The order in which a reviewer reads: what holds data, what works on it, what it is made of, who
# may use it. Kinds that are not named come in place of OTHERS.
OTHERS = ""
OBJECTS = (
    "table",
    "foreign table",
    "view",
    "materialized view",
    "sequence",
    "function",
    "procedure",
    "aggregate",
    "domain",
    "type",
    OTHERS,
    "role",
    "default privileges",
    "schema",
    "extension",
    "database",
)
PARTS = (
    "comment",
    "of type",
    "partition of",
    "inherits",
    "partitioned by",
    "column",
    "constraint",
    "index",
    "trigger",
    "rule",
    "row security",
    "policy",
    OTHERS,
    "owner",
    "grant",
    "definition",
)


class Fact(NamedTuple):
    """One row of snapshot.sql: an object ('table todo'), its part ('column due_at'), what it is."""

    object: str
    part: str
    definition: str


type Snapshot = tuple[Fact, ...]


def read(connection: Connection, *, bookkeeping: bool = False) -> Snapshot:
    """The schema as this connection sees it now, its own uncommitted DDL included.

    Alembic's own table is left out, because a schema that models have made has none, unless
    `bookkeeping` asks for who may read or write it, which the history decides as well. Its key is
    left out even then: a deploy keeps its record there.

    Leaves the connection as it was: in a transaction or not, in autocommit, its settings unchanged.
    It goes below SQLAlchemy to do so, whose first statement begins a transaction that Alembic would
    take for the caller's, and would not commit.

    Raises:
        psycopg.Error: the caller's transaction had failed, a lock was not to be had in time, or
            another session dropped something in the middle ("cache lookup failed").
        ValueError: the connection has been invalidated.

    """
    driver = connection.connection.driver_connection
    if driver is None:
        raise ValueError("the connection has been invalidated: connect again")
    # A savepoint in a transaction, else a transaction: rolling either back undoes SET LOCAL.
    with driver.transaction(force_rollback=True), driver.cursor() as cursor:
        cursor.execute(PINS)
        cursor.execute(QUERY.replace(BOOKKEEPING, "NULL::regclass") if bookkeeping else QUERY)
        facts = (Fact(*row) for row in cursor)
        key = ("table alembic_version", "constraint alembic_version_pkc")
        return tuple(fact for fact in facts if fact[:2] != key)


def layout(snapshot: Snapshot, head: str | None) -> str:
    """The text of schema.txt: the head revision, then a block per object with one fact a line.

    No line depends on another, so that git shows exactly what changed. Equal texts mean equal
    snapshots.
    """
    blocks: dict[str, list[Fact]] = {}
    for fact in snapshot:
        blocks.setdefault(fact.object, []).append(fact)
    lines = [f"revision {head or 'none'}"]
    for heading in sorted(blocks, key=_object_key):
        lines += ["", _one_line(heading)]
        for fact in sorted(blocks[heading], key=lambda fact: _part_key(fact.part)):
            lines += _entry(fact)
    return "\n".join(lines) + "\n"


def revision(text: str) -> str | None:
    """The head revision that the first line of a laid-out schema names."""
    name = text.partition("\n")[0].removeprefix("revision ")
    return None if name == "none" else name


def difference(before: Snapshot, after: Snapshot) -> str:
    """What changes from before to after, for people: see text_difference."""
    return text_difference(layout(before, None), layout(after, None))


def text_difference(before: str, after: str) -> str:
    """What changes between two laid-out schemas: '' when nothing does, whatever revision they name.

    Lines that start with '-' are only in before, with '+' only in after; the others say where.
    A definition of several lines is compared line by line.
    """
    old, new = _parse(before), _parse(after)
    lines: list[str] = []
    for heading in sorted(old.keys() | new.keys(), key=_object_key):
        if heading not in new:
            lines += _signed("-", [heading, *chain.from_iterable(old[heading].values())])
        elif heading not in old:
            lines += _signed("+", [heading, *chain.from_iterable(new[heading].values())])
        elif old[heading] != new[heading]:
            lines += _signed(" ", [heading])
            for part in sorted(old[heading].keys() | new[heading].keys(), key=_part_key):
                lines += _entry_difference(old[heading].get(part, []), new[heading].get(part, []))
    return "".join(f"{line}\n" for line in lines)


def _object_key(heading: str) -> tuple[int, str]:
    return _rank(heading, OBJECTS), heading


def _part_key(part: str) -> tuple[int, str]:
    return _rank(part, PARTS), part


def _rank(text: str, order: tuple[str, ...]) -> int:
    """The place of the first entry of the order that the text starts with, as whole words."""
    matches = (place for place, words in enumerate(order) if f"{text} ".startswith(f"{words} "))
    return next(matches, order.index(OTHERS))


def _entry(fact: Fact) -> list[str]:
    part = "    " + _one_line(fact.part)
    first, *rest = _visible(fact.definition).split("\n")
    if rest:
        return [part, *(f"        {line}" if line else "" for line in (first, *rest))]
    return [f"{part}  {first}" if first else part]


def _one_line(name: str) -> str:
    return _visible(name).replace("\n", "␊")


def _visible(text: str) -> str:
    """The text with visible signs for the blanks that editors and git strip or rewrite."""
    lines = text.replace("\r", "␍").split("\n")
    marked = [f"{line}¶" if line.endswith("¶") or line != line.rstrip() else line for line in lines]
    if len(marked) > 1 and not marked[-1]:
        marked[-1] = "¶"
    return "\n".join(marked)


def _parse(text: str) -> dict[str, dict[str, list[str]]]:
    """The lines of each part by object, from a text that layout made."""
    blocks: dict[str, dict[str, list[str]]] = {}
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.split("\n")[1:]:
        if line and not line.startswith(" "):
            parts = blocks[line] = {}
        elif line.startswith("    ") and not line.startswith("     "):
            # Names may hold two blanks: such parts share a key, and none is lost.
            lines = parts.setdefault(line.strip().partition("  ")[0], [])
            lines.append(line)
        else:
            lines.append(line)
    for parts in blocks.values():
        for lines in parts.values():
            # The blank line between two blocks is no part of a definition.
            while not lines[-1]:
                lines.pop()
    return blocks


def _entry_difference(old: list[str], new: list[str]) -> list[str]:
    if old == new:
        return []
    if old[:1] != new[:1]:
        return _signed("-", old) + _signed("+", new)
    # Both spread over several lines below the same name.
    hunks = list(unified_diff(old[1:], new[1:], n=2, lineterm=""))[2:]
    changed = [f"{line[0]} {line[1:]}".rstrip() for line in hunks if not line.startswith("@@")]
    return _signed(" ", old[:1]) + changed


def _signed(sign: str, lines: list[str]) -> list[str]:
    return [f"{sign} {line}".rstrip() for line in lines]
