"""The code of a backfill: it follows the primary key in batches, and commits each of them.

It is the recipe of migrations/README.md, "A backfill": an interrupted run goes on where it stopped.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from schema.errors import CannotRunError
from schema.revision.code.columns import escaped
from schema.revision.code.literals import has_newline_in_literal, split, string, unquoted
from schema.sql_lint.sqlfluff import laid_out

OFFLINE = "OFFLINE: it continues where an interrupted run stopped."
NOT_REVERTED = "It is unknown which rows had no value."

_ROWS = 1000
"""Rows that one transaction writes."""
_WIDTH = 90
_KEY = re.compile(r"PRIMARY KEY \(([^()]+)\)")


@dataclass(frozen=True)
class Code:
    """The code of a backfill."""

    constants: tuple[str, ...]
    upgrade: tuple[str, ...]


def code(heading: str, columns: Mapping[str, str], facts: Mapping[tuple[str, str], str]) -> Code:
    """Write the code that gives columns the values of expressions, where they have none.

    Raises:
        CannotRunError: the table has no primary key to follow.

    """
    key = _key(heading, facts)
    if key is None:
        raise CannotRunError(
            f"Nothing is written: {heading} has no primary key, which a backfill of"
            f" {', '.join(columns)} could follow in batches; give it one first."
        )
    table = heading.removeprefix("table ")
    by = ", ".join(key)
    bound = ", ".join(f":key_{number}" for number, _ in enumerate(key))
    named = ", ".join(f"{one} AS key_{number}" for number, one in enumerate(key))
    same = " AND ".join(f"{table}.{one} = batch.key_{number}" for number, one in enumerate(key))
    left = f"FROM {table} WHERE ({by}) >= ({bound}) ORDER BY {by}"
    empty = " OR ".join(f"{one} IS NULL" for one in columns)
    values = {name: escaped(one) for name, one in columns.items()}
    missing = " OR ".join(f"{table}.{one} IS NULL" for one in columns)
    if len(columns) > 1:
        values = {name: f"coalesce({table}.{name}, {one})" for name, one in values.items()}
        missing = f"({missing})"
    queries = {
        "FIRST": f"SELECT {named} FROM {table} WHERE {empty} ORDER BY {by} LIMIT 1",
        "FILL": f"UPDATE {table} SET {', '.join(f'{name} = {one}' for name, one in values.items())}"
        f" FROM (SELECT {named} {left} LIMIT {_ROWS}) AS batch"
        f" WHERE {same} AND {missing}",
        "NEXT": f"SELECT {named} {left} LIMIT 1 OFFSET {_ROWS}",
    }
    what = ", ".join(f"{unquoted(table)}.{unquoted(one)}" for one in columns)
    keeps = any("app.keep_updated_at" in definition for definition in facts.values())
    constants = tuple(_constant(name, sql) for name, sql in queries.items())
    return Code(constants, tuple(_upgrade(what, keeps_updated_at=keeps)))


def _key(heading: str, facts: Mapping[tuple[str, str], str]) -> list[str] | None:
    for (of, part), definition in facts.items():
        found = _KEY.match(definition) if of == heading and part.startswith("constraint ") else None
        if found:
            return split(found[1])
    return None


def _constant(name: str, sql: str) -> str:
    marked = re.sub(r":(key_\d+)", r"bound_\1", sql)  # sqlfluff does not know the parameters
    laid = re.sub(r"bound_(key_\d+)", r":\1", laid_out(marked, _WIDTH))
    if '"""' in laid or "\\" in laid or has_newline_in_literal(laid):
        return f"{name} = sa.text({string(laid)})"
    text = "\n".join(f"    {line}" if line else "" for line in laid.splitlines())
    return f'{name} = sa.text("""\n{text}\n""")'


def _upgrade(what: str, *, keeps_updated_at: bool) -> list[str]:
    setting = "SELECT set_config('app.keep_updated_at', '{}', false)"
    on, off = (
        [f"op.execute({string(setting.format(state))})"] if keeps_updated_at else []
        for state in ("on", "off")
    )
    inner = [
        'op.execute("SET row_security = off")  # raise an error instead of silently hiding rows',
        *on,
        "connection = op.get_bind()",
        "place = connection.execute(FIRST).one_or_none()",
        "while place is not None:",
        "    filled += connection.execute(FILL, place._asdict()).rowcount",
        "    place = connection.execute(NEXT, place._asdict()).one_or_none()",
        *off,
    ]
    return [
        "filled = 0",
        "with op.get_context().autocommit_block():",
        *(f"    {line}" for line in inner),
        f'logging.getLogger("deploy").info({string(f"{what}: %d rows filled.")}, filled)',
    ]
