"""The schema that the models declare, built in a scratch database of its own."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import URL, CheckConstraint, Connection, MetaData
from sqlalchemy.dialects import postgresql

from migrations import snapshot
from migrations.snapshot import Snapshot
from schema.ddl.definition import by_part, split_comment
from schema.errors import CannotRunError
from schema.postgres.connection import connect, describe_error, driver_of
from schema.revision.code.statements import Checks, Orders

VERSION_TABLE = "table alembic_version"

_ORDERS = """
SELECT c.oid::regclass::text, array_agg(quote_ident(a.attname) ORDER BY a.attnum)
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relkind IN ('r', 'p', 'f') AND a.attnum > 0 AND NOT a.attisdropped
  AND c.relnamespace::regnamespace::text !~ '^(pg_|information_schema$)'
GROUP BY c.oid
"""


@dataclass(frozen=True)
class Schema:
    """A schema, and what its snapshot does not say."""

    facts: Snapshot
    orders: Orders
    checks: Checks = field(default_factory=dict)


def read(connection: Connection, *, version_table: bool = False) -> Schema:
    """Read a database's schema."""
    facts = snapshot.read(connection, version_table=version_table)
    orders = driver_of(connection).execute(_ORDERS).fetchall()
    return Schema(facts, dict(orders))


def build(empty: URL, metadata: Sequence[MetaData]) -> Schema:
    """Create everything that the models declare, and read it.

    Raises:
        CannotRunError: `create_all` fails.

    """
    with connect(empty) as connection:
        try:
            for one in metadata:
                one.create_all(connection)
        except Exception as error:  # a listener may raise whatever it likes
            what = describe_error(error)
            raise CannotRunError(f"metadata.create_all fails: {what}; fix the models.") from error
        found = read(connection)
    return replace(found, checks=dict(_checks(found.facts, metadata)))


def _checks(
    facts: Snapshot, metadata: Sequence[MetaData]
) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """Yield the conditions that people wrote, such as `IN (…)` for `= ANY (ARRAY[…])`."""
    shown = by_part(facts)
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy
    names = dialect.identifier_preparer
    for table in (table for one in metadata for table in one.sorted_tables):
        for one in table.constraints:
            if not isinstance(one, CheckConstraint):
                continue
            key = f"table {names.format_table(table)}", f"constraint {names.format_constraint(one)}"
            definition, _ = split_comment(shown.get(key, ""))
            options = {"literal_binds": True}
            condition = str(one.sqltext.compile(dialect=dialect, compile_kwargs=options))
            if re.fullmatch(r"CHECK \(.*\)", definition, re.DOTALL) and "\n" not in condition:
                yield key, (definition, f"CHECK ({condition})")


def with_version_table(models: Snapshot, history: Snapshot) -> Snapshot:
    """Add Alembic's own table, which no model declares, as the history has it."""
    own = (fact for fact in history if fact.object == VERSION_TABLE)
    return tuple(sorted((*models, *own)))
