"""The server of a command, embedded or given, and its scratch databases.

Commands never write to an existing database: each use creates a database and drops it at the end.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from migrations.postgres import OLDEST_VERSION, describe_url, first_error_line, parse_url
from schema.errors import CannotRunError
from schema.postgres.connection import connect
from schema.postgres.embedded import embedded

_PREFIX = "todo_schema_scratch_"
DROP_SECONDS = 5.0
"""How long to try to drop a scratch database that is in use."""

_LOCK = 1_951_625_587
"""The first half of the advisory locks' keys: an arbitrary number."""


@dataclass(frozen=True)
class Server:
    """A server for scratch databases."""

    maintenance: URL
    """The maintenance database, as the role that owns the scratch databases."""
    version: str
    """The server's version, such as 18.4."""
    prefix: str
    """The prefix of the names of this run's scratch databases."""
    _connection: Connection
    _unsafe: bool
    """Whether a crash may lose its data: fsync is off, as on the embedded server."""
    superuser: URL | None = None
    """The maintenance database, as the superuser of an embedded server."""

    @contextmanager
    def database(self, template: URL | None = None) -> Iterator[URL]:
        """Create a scratch database, empty or cloned from an idle one, and drop it afterwards.

        Raises:
            CannotRunError: it could not be created.

        """
        name = f"{self.prefix}{secrets.token_hex(4)}"
        clone = "" if template is None else f' TEMPLATE "{template.database}"'
        # Where nothing is synced, files are copied in half the time; elsewhere the checkpoint that
        # it needs would hurt others.
        strategy = "FILE_COPY" if self._unsafe else "WAL_LOG"
        try:
            self._connection.exec_driver_sql(f'CREATE DATABASE "{name}"{clone} STRATEGY {strategy}')
        except DBAPIError as error:
            raise CannotRunError(
                f"No scratch database could be made: {first_error_line(error)}."
            ) from error
        try:
            if template is not None:
                self._copy_privileges(template, name)
            yield self.maintenance.set(database=name)
        finally:
            self._drop(name)

    def _drop(self, name: str) -> None:
        """Drop a scratch database.

        The owner may not end an autovacuum worker or a superuser's session, which end by
        themselves soon: that must not take the result away for which the database was made. What
        is left is dropped by a later run.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(DBAPIError),
            wait=wait_fixed(0.1),
            stop=stop_after_delay(DROP_SECONDS),
            retry_error_callback=lambda _state: None,
        )
        drop = f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'
        retrying(self._connection.exec_driver_sql, drop)

    def _copy_privileges(self, template: URL, name: str) -> None:
        """Copy the template's privileges to the clone: CREATE DATABASE does not."""
        granted = self._connection.execute(
            text(
                """
                SELECT g.privilege_type, coalesce(quote_ident(r.rolname), 'PUBLIC')
                FROM pg_database AS d
                CROSS JOIN aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS g
                LEFT JOIN pg_roles AS r ON r.oid = g.grantee
                WHERE d.datname = :template
                """
            ),
            {"template": template.database},
        ).all()
        self._connection.exec_driver_sql(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
        for privilege, grantee in granted:
            self._connection.exec_driver_sql(f'GRANT {privilege} ON DATABASE "{name}" TO {grantee}')


@contextmanager
def open_server(
    database_url: str | None, postgres: str | int, progress: Callable[[str], None]
) -> Iterator[Server]:
    """Open the server that the URL names, or an embedded one: see `embedded`.

    Raises:
        CannotRunError: it cannot be reached or started, is too old, or its role cannot create
            databases and roles.
        BadDatabaseURLError: the URL cannot be used.

    """
    progress("server")
    if database_url is not None:
        with open_url(parse_url(database_url)) as opened:
            yield opened
    else:
        with embedded(postgres) as started, open_url(started.owner, started.superuser) as opened:
            yield opened


@contextmanager
def open_url(url: URL, superuser: URL | None = None) -> Iterator[Server]:
    """Open the server that the URL names; see `open_server`."""
    with connect(url, autocommit=True) as connection:
        _require_usable(connection, url)
        prefix = _claim_prefix(connection)
        _clear_leftovers(connection)
        version = connection.exec_driver_sql("SHOW server_version").scalar_one().split()[0]
        unsafe = connection.exec_driver_sql("SHOW fsync").scalar_one() == "off"
        yield Server(url, version, prefix, connection, unsafe, superuser)


def _require_usable(connection: Connection, url: URL) -> None:
    """Refuse an old or read-only server, and a role that cannot create databases and roles."""
    number, standby = connection.exec_driver_sql(
        "SELECT current_setting('server_version_num')::int, pg_is_in_recovery()"
    ).one()
    if number // 10000 < OLDEST_VERSION:
        raise CannotRunError(
            f"PostgreSQL {number // 10000} at {describe_url(url)} is too old; {OLDEST_VERSION} is"
            " the oldest that is supported."
        )
    if standby:
        raise CannotRunError(
            f"The server at {describe_url(url)} is a read-only standby; name its primary instead."
        )
    may = connection.exec_driver_sql(
        "SELECT rolsuper OR (rolcreatedb AND rolcreaterole)"
        " FROM pg_roles WHERE rolname = current_user"
    ).scalar_one()
    if not may:
        raise CannotRunError(
            f"The role {url.username} may not make scratch databases and group roles; give it"
            " CREATEDB and CREATEROLE, or name a role that has them."
        )


def _claim_prefix(connection: Connection) -> str:
    """Choose the prefix of this run's databases, and hold its advisory lock for the run.

    Advisory locks belong to a database, so the prefix contains the oid of the lock's database.
    """
    run = secrets.randbelow(2**31)
    database = connection.exec_driver_sql(
        "SELECT oid FROM pg_database WHERE datname = current_database()"
    ).scalar_one()
    connection.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK}, {run})")
    return f"{_PREFIX}{database}_{run}_"


def _clear_leftovers(connection: Connection) -> None:
    """Drop the databases of killed runs: their lock is free."""
    rows = connection.exec_driver_sql(
        f"""
        SELECT s.datname, split_part(s.datname, '_', 5)::int
        FROM pg_database AS s
        JOIN pg_database AS d ON d.datname = current_database()
        WHERE s.datname ~ ('^{_PREFIX}' || d.oid || '_[0-9]+_') AND pg_has_role(s.datdba, 'USAGE')
        """
    ).all()
    for name, run in rows:
        if connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({_LOCK}, {run})").scalar_one():
            connection.exec_driver_sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_LOCK}, {run})")
