"""The schema that the models declare, built in a scratch database of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import URL, MetaData

from migrations import snapshot
from migrations.snapshot import Snapshot
from schema.errors import CannotRunError
from schema.postgres.connection import connect, describe_error, driver_of

VERSION_TABLE = "table alembic_version"

_ORDERS = """
SELECT c.oid::regclass::text, array_agg(quote_ident(a.attname) ORDER BY a.attnum)
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relkind IN ('r', 'p', 'f') AND a.attnum > 0 AND NOT a.attisdropped
  AND c.relnamespace::regnamespace::text !~ '^(pg_|information_schema$)'
GROUP BY c.oid
"""


@dataclass(frozen=True)
class Models:
    """What the models declare."""

    facts: Snapshot
    orders: Mapping[str, list[str]]
    """The columns of each table, in the order of the models."""


def build(empty: URL, metadata: Sequence[MetaData]) -> Models:
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
        facts = snapshot.read(connection)
        orders = driver_of(connection).execute(_ORDERS).fetchall()
    return Models(facts, dict(orders))


def with_version_table(models: Snapshot, history: Snapshot) -> Snapshot:
    """Add Alembic's own table, which no model declares, as the history has it."""
    own = (fact for fact in history if fact.object == VERSION_TABLE)
    return tuple(sorted((*models, *own)))
