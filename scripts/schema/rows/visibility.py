"""Let the tables' owner see and write all rows, where it obeys row security."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, text

_FORCED = text(
    """
    SELECT c.oid::regclass::text FROM pg_class AS c
    WHERE c.relforcerowsecurity AND c.relkind IN ('r', 'p') AND NOT EXISTS (
      SELECT FROM pg_roles AS r WHERE r.rolname = current_user AND (r.rolsuper OR r.rolbypassrls)
    )
    """
)


@contextmanager
def all_rows_visible(connection: Connection) -> Iterator[None]:
    """Do not force row security on the owner during a block, within its transaction.

    Neon's owner has BYPASSRLS, and a superuser needs none: then nothing is done.
    """
    forced = list(connection.scalars(_FORCED))
    for table in forced:
        connection.exec_driver_sql(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    yield
    for table in forced:
        connection.exec_driver_sql(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
