"""What deploys and the `schema` command both need of PostgreSQL: URLs, versions, errors."""

import os
import re

import psycopg
from alembic.util import CommandError
from psycopg.pq import Conninfo
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

DRIVER = "postgresql+psycopg"

OLDEST_VERSION = 16
"""The oldest major version of PostgreSQL that is supported."""


# Between the first quote and the last: the value may hold some itself.
_QUOTED = re.compile(r'".*"', re.DOTALL)

_DATA = "22"
"""The class of errors that quote the value that they complain of; others quote names."""

_PARAMETERS = {parameter.keyword.decode() for parameter in Conninfo.get_defaults()}
"""What may follow the ?, by libpq's names."""

_UNREADABLE = (
    "The database URL cannot be read; it should look like"
    " postgresql://user:password@host/database, with special characters percent-encoded"
    " (@ is %40, / is %2F, ? is %3F, % is %25)."
)


class BadDatabaseURLError(CommandError):
    """A database URL that cannot be used; the message is one sentence without credentials.

    Alembic's command line prints it without a traceback.
    """


def parse_url(text: str) -> URL:
    """Read a database URL, `postgres://` and `postgresql://` alike, for SQLAlchemy and psycopg 3.

    No error repeats any part of it: what cannot be read may be a password, wherever it stands.

    Raises:
        BadDatabaseURLError: it is no PostgreSQL URL, could be read in two ways, has a parameter
            that libpq does not know, or names no database.

    """
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        url = None
    if url is None or _ambiguous(text):  # raised here, for the original error repeats the password
        raise BadDatabaseURLError(_UNREADABLE)
    if url.drivername not in {"postgres", "postgresql", DRIVER}:
        raise BadDatabaseURLError(
            "The database URL is another system's; only PostgreSQL (postgresql://) is supported."
        )
    # psycopg would take more, autocommit for example, and its complaint would name the parameter.
    if not url.query.keys() <= _PARAMETERS:
        raise BadDatabaseURLError(
            "The database URL has a parameter after the ? that PostgreSQL does not know; take it"
            " out, or percent-encode & and = in the value before it: postgresql://…?sslmode=require."
        )
    if not url.database:
        raise BadDatabaseURLError(
            "The database URL names no database; add one: postgresql://user@host/database."
        )
    return url.set(drivername=DRIVER)


def _ambiguous(text: str) -> bool:
    """Whether a part of the password may stand where something else does: host, name or parameter.

    The first / or ? ends the host (RFC 3986), so an @ behind it shows that the / or ? may be the
    password's, as a parameter without a value shows that the & before it may be.
    """
    authority, *rest = re.split("[/?]", text.partition("://")[2], maxsplit=1)
    parameters = text.partition("?")[2].strip()
    return (
        authority.count("@") > 1
        or any("@" in part for part in rest)
        or bool(parameters and not all(re.match("[^=]+=.", one) for one in parameters.split("&")))
    )


def is_pooled(url: URL) -> bool:
    """Whether the host is Neon's pooler, in whose hands no session lock or setting lasts."""
    host = url.host or url.query.get("host") or ""
    hosts = [host] if isinstance(host, str) else host
    return any(one.lower().partition(".")[0].endswith("-pooler") for one in hosts)


def url_from_environment() -> URL:
    """Read the URL that DATABASE_URL holds.

    Raises:
        BadDatabaseURLError: it is unset, cannot be used, or goes through Neon's pooler: there a
            session's locks and settings would be anybody's.

    """
    text = os.environ.get("DATABASE_URL", "")
    if not text.strip():
        raise BadDatabaseURLError(
            "DATABASE_URL is not set; set it to the database to migrate, for example"
            " DATABASE_URL=postgresql://user:password@host/database alembic upgrade head."
        )
    url = parse_url(text)
    if is_pooled(url):
        raise BadDatabaseURLError(
            "DATABASE_URL names Neon's pooled host, where a session's locks and settings do not"
            " hold; take the direct one, whose name has no -pooler."
        )
    return url


def describe_url(url: URL) -> str:
    """Name a database for people: role, host, port and database, never the password."""
    host = url.host or url.query.get("host") or "the local socket"
    port = f":{url.port}" if url.port else ""
    return f"{url.database} on {host}{port} as {url.username or 'the default role'}"


def first_error_line(error: BaseException) -> str:
    """Say in one line what PostgreSQL or the driver complained of, without a row's values."""
    first: BaseException | None = error
    while first is not None and not isinstance(first, DBAPIError | psycopg.Error):
        first = first.__context__
    if first is None:
        first = error
    original = first.orig if isinstance(first, DBAPIError) else first
    complaint = str(original)
    if isinstance(original, psycopg.Error) and (original.sqlstate or "").startswith(_DATA):
        complaint = _QUOTED.sub('"…"', original.diag.message_primary or "")
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(original).__name__
