"""The database that a command works on, as people and Neon's console write its URL."""

import os
import re

from alembic.util import CommandError
from psycopg.pq import Conninfo
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

DRIVER = "postgresql+psycopg"

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


def parse(text: str) -> URL:
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


def pooled(url: URL) -> bool:
    """Whether the host is Neon's pooler, in whose hands no session lock or setting lasts."""
    host = url.host or url.query.get("host") or ""
    hosts = [host] if isinstance(host, str) else host
    return any(one.lower().partition(".")[0].endswith("-pooler") for one in hosts)


def from_environment() -> URL:
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
    url = parse(text)
    if pooled(url):
        raise BadDatabaseURLError(
            "DATABASE_URL names Neon's pooled host, where a session's locks and settings do not"
            " hold; take the direct one, whose name has no -pooler."
        )
    return url
