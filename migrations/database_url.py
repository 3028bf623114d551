"""The database that a command works on, as people and Neon's console write its URL."""

import os

from alembic.util import CommandError
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

DRIVER = "postgresql+psycopg"


class BadDatabaseURLError(CommandError):
    """A database URL that cannot be used; the message is one sentence without credentials.

    Alembic's command line prints it without a traceback.
    """


def parse(text: str) -> URL:
    """Read a database URL, `postgres://` and `postgresql://` alike, for SQLAlchemy and psycopg 3.

    Raises:
        BadDatabaseURLError: it is no PostgreSQL URL, or names no database.

    """
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        url = None
    # An unencoded @ in a password would make the rest of it part of the host.
    twice = url is not None and "@" in (url.host or "")
    if url is None or twice or text.partition("://")[2].partition("/")[0].count("@") > 1:
        raise BadDatabaseURLError(  # without the original error: it repeats the password
            "The database URL cannot be read; it should look like"
            " postgresql://user:password@host/database, with special characters percent-encoded."
        )
    if url.drivername not in {"postgres", "postgresql", DRIVER}:
        raise BadDatabaseURLError(
            f"The database URL begins with {url.drivername}://, but only PostgreSQL"
            " (postgresql://) is supported."
        )
    if not url.database:
        raise BadDatabaseURLError(
            "The database URL names no database; add one: postgresql://user@host/database."
        )
    return url.set(drivername=DRIVER)


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
