"""A database at head for tests that name the columns that existed when they were written.

A column that is required later, without a default, gets one there: the tests, and the models, then
insert rows as before.
"""

from collections.abc import Iterator

import pytest
from sqlalchemy import URL, FetchedValue

from models import metadata
from schema.access.trial import literal
from schema.postgres.connection import connect
from schema.postgres.scratch import Server
from schema.project import scripts
from schema.revisions.history import revisions_oldest_first
from schema.revisions.runner import run, upgrade, upgrade_step
from schema.rows.generator import Generator
from schema.rows.tables import read_tables
from tests.support.frozen import LAST


@pytest.fixture(scope="session")
def later_defaults(server: Server) -> list[tuple[str, str, str]]:
    """Return table, column and a value, for columns that were made and required after LAST."""
    directory = scripts()
    revisions = revisions_oldest_first(directory)
    names = [revision.revision for revision in revisions]
    known = revisions[: names.index(LAST) + 1]
    with server.database() as url, connect(url) as connection:
        run(connection, directory, lambda _: [upgrade_step(directory, one) for one in known])
        before = {
            (table.name, column.name)
            for table in read_tables(connection).tables
            for column in table.columns
        }
    found = []
    with server.database() as url, connect(url) as connection:
        upgrade(connection, directory)
        tables = read_tables(connection)
        generator = Generator(connection, tables, seed="defaults")
        generator.fill({table.name: 1 for table in tables.tables})
        for table in tables.tables:
            for column in table.columns:
                model = metadata.tables[table.name].columns[column.name]
                known_table = any(name == table.name for name, _ in before)
                if (
                    known_table
                    and column.required
                    and model.server_default is None
                    and (table.name, column.name) not in before
                ):
                    value = connection.exec_driver_sql(
                        f'SELECT "{column.name}"::text FROM {table.sql} LIMIT 1'
                    ).scalar_one()
                    found.append((table.name, column.name, str(value)))
    return found


@pytest.fixture(scope="session")
def head_template(server: Server, later_defaults: list[tuple[str, str, str]]) -> Iterator[URL]:
    """Build a database at head that nobody connects to: clone it."""
    with server.database() as url:
        with connect(url) as connection:
            upgrade(connection, scripts())
            for table, column, value in later_defaults:
                connection.exec_driver_sql(
                    f'ALTER TABLE "{table}" ALTER COLUMN "{column}" SET DEFAULT {literal(value)}'
                )
                model = metadata.tables[table].columns[column]
                model.server_default = FetchedValue()
            connection.commit()
        yield url
