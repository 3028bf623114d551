"""Columns with a new name or type: the old one stays until no running release uses it.

The new column names the old one: `sa_column_kwargs={"info": {"renamed_from": "description"}}`. The
table then keeps the old column, which may be NULL and is no attribute, and a trigger keeps the two
equal, whichever a release writes. If the old column has another type, the model lists it in
`retiring` too. See "A rename" in migrations/README.md.
"""

import re
from collections.abc import Iterator

from sqlalchemy import Column, Connection, MetaData, Table, event, text

from .base import metadata

# A release writes only the column that it knows: the other one is NULL in its INSERT.
_KEEPS_EQUAL = """
CREATE FUNCTION "{name}"() RETURNS trigger
LANGUAGE plpgsql SET search_path = ''
AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NEW."{old}" IS NULL THEN
      NEW."{old}" := NEW."{new}";
    ELSE
      NEW."{new}" := NEW."{old}";
    END IF;
  ELSIF NEW."{new}" IS DISTINCT FROM OLD."{new}" THEN
    NEW."{old}" := NEW."{new}";
  ELSIF NEW."{old}" IS DISTINCT FROM OLD."{old}" THEN
    NEW."{new}" := NEW."{old}";
  END IF;
  RETURN NEW;
END
$$
"""

_TRIGGER = """
CREATE TRIGGER "{name}" BEFORE INSERT OR UPDATE ON "{table}"
FOR EACH ROW EXECUTE FUNCTION "{name}"()
"""


def renamed_columns(table: Table) -> Iterator[tuple[str, str]]:
    """Yield the old and the new name of each column that is being renamed."""
    for column in table.columns:
        if isinstance(old := column.info.get("renamed_from"), str):
            yield old, column.name


def keep_old_columns(table: Table) -> None:
    """Keep the old column of each column that is being renamed, unless the model lists it."""
    for old, new in list(renamed_columns(table)):
        if old not in table.columns:
            column = table.columns[new]
            marker = re.match("(?:PERSONAL|SECRET): ", column.comment or "")
            comment = f"{marker[0] if marker else ''}retiring, {new} has its values"
            kept = Column(old, column.type, comment=comment, info={"retiring": True})
            table.append_column(kept)


@event.listens_for(metadata, "after_create")
def keep_equal(_metadata: MetaData, connection: Connection, **_options: object) -> None:
    """Create the triggers that keep the old and the new column equal."""
    for table in metadata.sorted_tables:
        for old, new in renamed_columns(table):
            name = f"{table.name}_{new}_renamed"
            names = {"name": name, "table": table.name, "old": old, "new": new}
            for statement in (
                _KEEPS_EQUAL.format(**names),
                f"COMMENT ON FUNCTION \"{name}\"() IS 'Trigger: {old} and {new} are one value'",
                f'REVOKE ALL ON FUNCTION "{name}"() FROM PUBLIC',
                _TRIGGER.format(**names),
            ):
                connection.execute(text(statement))
