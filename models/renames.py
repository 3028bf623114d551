"""Columns with a new name or type: the old one stays until no running release uses it.

The new column names the old one: `sa_column_kwargs={"info": {"renamed_from": "description"}}`. The
table then keeps the old column, which is no attribute, and a trigger keeps the two equal, whichever
a release writes. If the old column has another type, the model lists it in `retiring` too. See "A
rename" in migrations/README.md.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    TextClause,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.sql.elements import conv
from sqlalchemy.sql.visitors import ExternallyTraversible, replacement_traverse

from .base import metadata

# A release writes only the column that it knows: the other one is NULL in its INSERT.
_KEEPS_EQUAL = """
CREATE FUNCTION "{name}"() RETURNS trigger
LANGUAGE plpgsql SET search_path = ''
AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NEW."{first}" IS NULL THEN
      NEW."{first}" := NEW."{second}";
    ELSE
      NEW."{second}" := NEW."{first}";
    END IF;
  ELSIF NEW."{new}" IS DISTINCT FROM OLD."{new}" THEN
    IF OLD."{new}" IS NOT NULL OR OLD."{old}" IS NULL THEN  -- otherwise the row is being filled
      NEW."{old}" := NEW."{new}";
    END IF;
  ELSIF NEW."{old}" IS DISTINCT FROM OLD."{old}" THEN
    NEW."{new}" := NEW."{old}";
  END IF;
  RETURN NEW;
END
$$
"""

# Triggers fire in the order of their names: this one after those that change a value.
_TRIGGER = """
CREATE TRIGGER "zz_{name}" BEFORE INSERT OR UPDATE ON "{table}"
FOR EACH ROW EXECUTE FUNCTION "{name}"()
"""


def renamed_columns(table: Table) -> Iterator[tuple[str, str]]:
    """Yield the old and the new name of each column that is being renamed."""
    for column in table.columns:
        if isinstance(old := column.info.get("renamed_from"), str):
            yield old, column.name


def keep_old_columns(table: Table) -> None:
    """Keep the old column of each column that is being renamed, unless the model lists it.

    Its indexes and unique keys stay too: the running release searches by them, and may say
    `ON CONFLICT`.
    """
    renames = list(renamed_columns(table))
    for old, new in renames:
        if old not in table.columns:
            column = table.columns[new]
            marker = re.match("(?:PERSONAL|SECRET): ", column.comment or "")
            comment = f"{marker[0] if marker else ''}retiring, {new} has its values"
            # As required as the new one: a BEFORE trigger has given it its value by then.
            table.append_column(
                Column(
                    old,
                    column.type,
                    nullable=bool(column.nullable),
                    comment=comment,
                    info={"retiring": True},
                )
            )
    if renames:
        _keep_what_uses(table, {new: old for old, new in renames})


def _keep_what_uses(table: Table, old: Mapping[str, str]) -> None:
    """Keep the indexes and unique keys of the columns that others replace, by the new names."""
    for key in sorted(table.constraints, key=lambda one: str(one.name)):
        if isinstance(key, UniqueConstraint | PrimaryKeyConstraint) and any(
            one in key.columns for one in old
        ):
            _keep_key(key, table, old)
    for index in sorted(table.indexes, key=lambda one: str(one.name)):
        texts = list(_texts(index))
        if any(one in index.columns or any(map(_named(one).search, texts)) for one in old):
            _keep_index(index, table, old)


def _keep_key(
    key: UniqueConstraint | PrimaryKeyConstraint, table: Table, old: Mapping[str, str]
) -> None:
    """Make the same key of the old columns; of a primary key, of which there is one, a unique."""
    UniqueConstraint(
        *(table.columns[old.get(one.name, one.name)] for one in key.columns),
        name=_old_name(key) if isinstance(key, UniqueConstraint) else None,
        deferrable=key.deferrable,
        initially=key.initially,
        **key.dialect_kwargs,
    )


def _named(column: str) -> re.Pattern[str]:
    name = re.escape(column)
    return re.compile(rf'"{name}"|(?<![\w"]){name}(?![\w"])')


def _texts(index: Index) -> Iterator[str]:
    """Yield what an index says in SQL of its own."""
    for part in (*index.expressions, *index.dialect_kwargs.values()):
        if isinstance(part, TextClause):
            yield part.text


def _keep_index(index: Index, table: Table, old: Mapping[str, str]) -> None:
    """Make the same index of the old columns."""

    def of_old(part: Any) -> Any:  # noqa: ANN401  # what an index may hold
        if isinstance(part, TextClause):
            sql = part.text
            for new, name in old.items():
                sql = _named(new).sub(f'"{name}"', sql)
            return text(sql)
        if isinstance(part, ColumnElement):
            return replacement_traverse(part, {}, replaced)
        return part

    def replaced(
        element: ExternallyTraversible,
        **_options: Any,  # noqa: ANN401  # SQLAlchemy's
    ) -> ExternallyTraversible | None:
        found = (name for new, name in old.items() if element is table.columns[new])
        return next((table.columns[name] for name in found), None)

    options = {name: of_old(value) for name, value in index.dialect_kwargs.items()}
    expressions = [of_old(one) for one in index.expressions]
    Index(_old_name(index), *expressions, unique=index.unique, **options)


def _old_name(part: UniqueConstraint | Index) -> str | None:
    """Return a name beside the new one's; None if the columns make the name."""
    is_made = part.name is None or isinstance(part.name, conv)
    return None if is_made else f"{part.name}_retiring"


@event.listens_for(metadata, "after_create")
def keep_equal(_metadata: MetaData, connection: Connection, **_options: object) -> None:
    """Create the triggers that keep the old and the new column equal."""
    for table in metadata.sorted_tables:
        for old, new in renamed_columns(table):
            name = f"{table.name}_{new}_renamed"
            # A default of the new column is no value that a release has written.
            has_default = table.columns[new].server_default is not None
            first, second = (old, new) if has_default else (new, old)
            names = {"name": name, "table": table.name, "old": old, "new": new}
            names |= {"first": first, "second": second}
            for statement in (
                _KEEPS_EQUAL.format(**names),
                f"COMMENT ON FUNCTION \"{name}\"() IS 'Trigger: {old} and {new} are one value'",
                f'REVOKE ALL ON FUNCTION "{name}"() FROM PUBLIC',
                _TRIGGER.format(**names),
            ):
                connection.execute(text(statement))
