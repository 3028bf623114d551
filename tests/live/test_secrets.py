"""Secrets in a database's definitions do not reach what a command prints.

The theory: options of foreign data, connection strings and custom settings may hold passwords. A
report of drift goes to logs and issues. It shows that such a value has changed, and not the value.
"""

import secrets
from collections.abc import Iterator

import pytest
from rich.console import Console
from sqlalchemy import URL

from migrations import snapshot
from schema.cli import drift as drift_page
from schema.live import read
from schema.postgres.connection import connect
from schema.postgres.scratch import Server
from tests.support.alembic_process import execute
from tests.support.drift import examine

SECRET = "hunter2-planted"  # noqa: S105  # must not appear in any output


@pytest.fixture
def planted(head: URL, superusers: dict[int, URL], server: Server) -> Iterator[URL]:
    """A database at head with the secret wherever a definition may hold one."""
    role = f"planted_{secrets.token_hex(4)}"
    superuser = superusers[read.major(server.version)].set(database=head.database)
    execute(
        superuser,
        f"CREATE FOREIGN DATA WRAPPER far OPTIONS (token '{SECRET}')",
        f"CREATE SERVER away FOREIGN DATA WRAPPER far OPTIONS (host 'a', password '{SECRET}')",
        f"CREATE USER MAPPING FOR PUBLIC SERVER away OPTIONS (password '{SECRET}')",
        f"CREATE FOREIGN TABLE distant (id integer OPTIONS (key '{SECRET}')) SERVER away"
        f" OPTIONS (path '/{SECRET}')",
        f"CREATE SUBSCRIPTION near CONNECTION 'host=nowhere password={SECRET}' PUBLICATION far"
        " WITH (connect = false, slot_name = NONE)",
        f"CREATE ROLE {role}",
        f"GRANT SELECT ON todo TO {role}",
        f"ALTER ROLE {role} SET myapp.api_key = '{SECRET}'",
        f"ALTER ROLE {role} IN DATABASE {head.database} SET pgrst.jwt_secret = '{SECRET}'",
        f"ALTER DATABASE {head.database} SET app.backend = 'postgres://u:{SECRET}@host/db'",
    )
    yield head
    execute(superuser, "DROP SUBSCRIPTION near", f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    # The owner cannot drop it while a superuser's session is just ending.
    maintenance = superusers[read.major(server.version)]
    execute(maintenance, f"DROP DATABASE {head.database} WITH (FORCE)")


def test_secrets_are_not_printed(planted: URL) -> None:
    """Neither the page nor the document holds the secret; both name the objects that have it."""
    found = examine(planted)
    console = Console(width=200, soft_wrap=True)
    with console.capture() as captured:
        console.print(drift_page.page(found))
    for output in (captured.get(), drift_page.document(found)):
        assert SECRET not in output
        for shown in ("server away", "foreign table distant", "setting app.backend"):
            assert shown in output


def test_a_changed_secret_shows(planted: URL, superusers: dict[int, URL], server: Server) -> None:
    """Another value has another hash."""
    superuser = superusers[read.major(server.version)].set(database=planted.database)
    with connect(superuser) as connection:
        before = snapshot.read(connection)
        connection.exec_driver_sql("ALTER SERVER away OPTIONS (SET password 'another')")
        after = snapshot.read(connection)
    assert "password=#" in snapshot.difference(before, after)
