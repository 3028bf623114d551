"""The tables of a database and of the models, as far as Better Auth depends on them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy import URL, UniqueConstraint, inspect
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.interfaces import (
    ReflectedColumn,
    ReflectedForeignKeyConstraint,
    ReflectedIndex,
)
from sqlalchemy.types import TypeEngine

from schema.better_auth.needs import Index
from schema.postgres.connection import connect


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    type: str
    """As PostgreSQL names it, without a length."""
    nullable: bool
    filled: bool
    """Whether the database fills it if an INSERT leaves it out."""


@dataclass(frozen=True)
class Key:
    """A foreign key of one column."""

    column: str
    table: str
    referenced: str
    on_delete: str


@dataclass(frozen=True)
class Found:
    """A table of the database."""

    columns: Mapping[str, Column]
    indexes: tuple[Index, ...]
    """Those that hold every row, unique constraints and the primary key included."""
    keys: tuple[Key, ...]

    def unique(self, column: str) -> bool:
        """Whether no two rows can have the same value."""
        return any(one.unique and one.columns == (column,) for one in self.indexes)

    def indexed(self, column: str) -> bool:
        """Whether an index finds the rows with a value."""
        return any(one.columns[:1] == (column,) for one in self.indexes)


def read(url: URL) -> dict[str, Found]:
    """Read the tables of the schema public, by name."""
    with connect(url) as connection:
        inspector = inspect(connection)
        columns = inspector.get_multi_columns(schema="public")
        indexes = inspector.get_multi_indexes(schema="public")
        primary = inspector.get_multi_pk_constraint(schema="public")
        keys = inspector.get_multi_foreign_keys(schema="public")
        return {
            name: Found(
                {one["name"]: _column(one) for one in columns[_, name]},
                (
                    *(_index(one) for one in indexes.get((_, name), ()) if _whole(one)),
                    Index("", tuple(primary[_, name]["constrained_columns"]), unique=True),
                ),
                tuple(_key(one) for one in keys[_, name] if len(one["constrained_columns"]) == 1),
            )
            for _, name in columns
        }


def declared() -> dict[str, Found]:
    """Return the tables of the models, by name."""
    from models import metadata  # noqa: PLC0415  # a checkout may hold one that cannot be imported

    return {name: _declared(table) for name, table in metadata.tables.items()}


def _declared(table: sqlalchemy.Table) -> Found:
    unique = [one for one in table.constraints if isinstance(one, UniqueConstraint)]
    return Found(
        {
            one.name: Column(
                _type(one.type),
                bool(one.nullable),
                one.server_default is not None or one.identity is not None,
            )
            for one in table.columns
        },
        (
            *(
                Index(str(one.name), tuple(one.columns.keys()), bool(one.unique))
                for one in table.indexes
                if len(one.columns) == len(one.expressions)
                and one.dialect_kwargs.get("postgresql_where") is None
            ),
            *(Index(str(one.name), tuple(one.columns.keys()), unique=True) for one in unique),
            Index("", tuple(table.primary_key.columns.keys()), unique=True),
        ),
        tuple(
            Key(
                key.column_keys[0],
                key.elements[0].column.table.name,
                key.elements[0].column.name,
                key.ondelete or "NO ACTION",
            )
            for key in table.foreign_key_constraints
            if len(key.elements) == 1
        ),
    )


def _type(kind: TypeEngine[Any]) -> str:
    """Name a type as PostgreSQL does, without a length."""
    compiled = kind.compile(postgresql.dialect())  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so
    name, _, rest = compiled.lower().partition("(")
    return f"{name}{rest.partition(')')[2]}"


def _column(one: ReflectedColumn) -> Column:
    filled = one["default"] is not None or "identity" in one or "computed" in one
    return Column(_type(one["type"]), one["nullable"], filled)


def _whole(one: ReflectedIndex) -> bool:
    """Whether an index holds every row, by columns alone."""
    options: dict[str, Any] = one.get("dialect_options", {})
    return "postgresql_where" not in options and "expressions" not in one


def _index(one: ReflectedIndex) -> Index:
    included = len(one.get("include_columns", ()))
    columns = [name for name in one["column_names"] if name is not None]
    del columns[len(columns) - included :]
    return Index(one["name"] or "", tuple(columns), bool(one["unique"]))


def _key(one: ReflectedForeignKeyConstraint) -> Key:
    return Key(
        one["constrained_columns"][0],
        one["referred_table"],
        one["referred_columns"][0],
        one.get("options", {}).get("ondelete", "NO ACTION"),
    )
