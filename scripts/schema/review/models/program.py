"""Prints, as JSON, the statements of a `models` package or what its start-up assertions say.

`schema.review.models.statements` runs it in a process of its own, in which `models` is the base
branch's package or the checkout's. Each line that it reads is the URL of a database whose start-up
assertions are asked for, or empty, for the statements. It must not import what could import the
checkout's models first.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapper, configure_mappers

ASSERTIONS = ("assert_isolated", "assert_compatible")
"""What an application calls at its start."""
START_UP = "start-up"

_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so
_WITH_LENGTH = re.compile(r"(?:VAR)?CHAR\(\d+\)")


def statements() -> Iterator[dict[str, str]]:
    """Yield the statements on each table that the models map or name."""
    import models  # noqa: PLC0415  # an error of the models is the result of this function

    configure_mappers()
    mapped = _mapped_columns()
    for table in models.metadata.sorted_tables:
        columns = [
            column
            for column in table.columns
            if (column in mapped[table] if table in mapped else "retiring" not in column.info)
        ]
        if columns:
            yield from _OnTable(table, columns).statements()
    for name in _assertions():
        yield {"table": name, "command": START_UP, "sql": "", "reads": ""}


def start_up(url: str) -> dict[str, str]:
    """Return what each start-up assertion says on that database; "" if it passes."""
    found: dict[str, str] = {}
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    for name, assertion in _assertions().items():
        with engine.connect() as connection:
            found[name] = _said(assertion, connection)
    return found


def _assertions() -> dict[str, Any]:
    """Return what these models have of the assertions: an older release may lack one."""
    import models  # noqa: PLC0415  # as above

    return {name: getattr(models, name) for name in ASSERTIONS if hasattr(models, name)}


def _said(assertion: Any, connection: sa.Connection) -> str:  # noqa: ANN401  # of any release
    try:
        assertion(connection)
    except (RuntimeError, DBAPIError) as error:
        message = str(error.orig if isinstance(error, DBAPIError) else error)
        return message.partition("\n")[0]
    return ""


def _mapped_columns() -> dict[sa.FromClause, set[sa.ColumnElement[Any]]]:
    """Return the columns of each table that are attributes of a class."""
    modules = [
        module for name, module in list(sys.modules.items()) if f"{name}.".startswith("models.")
    ]
    found: dict[sa.FromClause, set[sa.ColumnElement[Any]]] = {}
    for value in {one for module in modules for one in vars(module).values() if _is_class(one)}:
        mapper = sa.inspect(value, raiseerr=False)
        if isinstance(mapper, Mapper):
            for attribute in mapper.column_attrs:
                for column in attribute.columns:
                    if isinstance(column, sa.Column):
                        found.setdefault(column.table, set()).add(column)
    return found


def _is_class(value: object) -> bool:
    return isinstance(value, type)


class _OnTable:
    """The statements on one table.

    They name the table without its defaults, which SQLAlchemy would add. The values come from a
    row as JSON, and have the types that SQLAlchemy gives to parameters.
    """

    def __init__(self, table: sa.Table, columns: Sequence[sa.Column[Any]]) -> None:
        self._columns = columns
        self._name = table.fullname.removeprefix("public.")
        self._table = sa.table(
            table.name, *(sa.column(one.name, one.type) for one in columns), schema=table.schema
        )
        self._key = tuple(one for one in columns if one.primary_key)
        self._made = {
            one.name
            for one in columns
            if one.server_default is not None or one is table.autoincrement_column
        }
        """The columns that the ORM leaves out where an object has no value."""

    def statements(self) -> Iterator[dict[str, str]]:
        """Yield what the ORM executes: whole rows, and each column for a role with less."""
        yield self._described("SELECT", sa.select(*self._table.c))
        for one in self._columns:
            yield self._described("SELECT", sa.select(self._table.c[one.name]), _kind(one))
        written = [
            one
            for one in self._columns
            if one.computed is None and not (one.identity is not None and one.identity.always)
        ]
        named = [one for one in written if one.name not in self._made]
        for columns, full in ((named, False), (written, True)):
            if columns:
                yield self._described("INSERT", self._insert(columns, full=full))
        for one in written:
            given = self._given(*self._key, one)
            update = sa.update(self._table).values({self._table.c[one.name]: given.c[one.name]})
            yield self._described("UPDATE", update.where(*self._same_key(given)))
        given = self._given(*(self._key or self._columns))
        yield self._described("DELETE", sa.delete(self._table).where(*self._same_key(given)))

    def _insert(self, columns: Sequence[sa.Column[Any]], *, full: bool) -> sa.Insert:
        """Insert the row; unless `full`, NULL is written where an object may lack a value."""
        given = self._given(*columns)
        values = [
            sa.null() if one.nullable and one.default is None and not full else given.c[one.name]
            for one in columns
        ]
        names = [one.name for one in columns]
        made = [self._table.c[name] for name in sorted(self._made)]
        row = sa.select(*values).select_from(given)
        insert = sa.insert(self._table).from_select(names, row)
        return insert.returning(*made) if made else insert

    @staticmethod
    def _given(*columns: sa.Column[Any]) -> sa.TableValuedAlias:
        """Return the row's values of these columns only: another one may not fit its type."""
        typed = {one.name: sa.column(one.name, _sent(one)) for one in columns}
        return (
            sa.func.json_to_record(sa.bindparam("row", type_=postgresql.JSON))
            .table_valued(*typed.values())
            .render_derived(name="given", with_types=True)
        )

    def _same_key(self, given: sa.TableValuedAlias) -> Iterator[sa.ColumnElement[bool]]:
        for one in self._key:
            yield self._table.c[one.name] == given.c[one.name]

    def _described(
        self, command: str, statement: sa.ClauseElement, reads: str = ""
    ) -> dict[str, str]:
        sql = str(statement.compile(dialect=_DIALECT))
        return {"table": self._name, "command": command, "sql": sql, "reads": reads}


def _kind(column: sa.Column[Any]) -> str:
    return str(column.type.compile(dialect=_DIALECT))


def _sent(column: sa.Column[Any]) -> sa.types.TypeEngine[Any]:
    """Return the type of a parameter; SQLAlchemy sends every text without its length."""
    return sa.String() if _WITH_LENGTH.fullmatch(_kind(column)) else column.type


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr  # the models may print
    import models  # noqa: F401  # before the first question

    for question in sys.stdin:
        url = question.strip()
        answers.write(f"{json.dumps(start_up(url) if url else list(statements()))}\n")
        answers.flush()
