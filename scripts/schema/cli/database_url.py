"""The database that a command works on: --database-url, or DATABASE_URL.

It imports nothing slow, because every command's options use it.
"""

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from sqlalchemy import URL

_PASSWORD = re.compile(r"://[^/?#@]*:[^/?#]*@|[?&]password=")
"""A URL with a password, also where the password makes it unreadable."""


def warn_of_password(instead: str) -> Callable[[str | None], str | None]:
    """Return an option's callback, which warns if the URL has a password; `instead` is advice.

    The warning is one line on standard error, without the URL.
    """

    def warn(url: str | None) -> str | None:
        if url is not None and _PASSWORD.search(url):
            typer.echo(
                "schema: warning: other users of this machine can see the password in an argument"
                f" (ps), and the shell keeps it in its history; {instead}.",
                err=True,
            )
        return url

    return warn


def target(option: str | None) -> "URL":
    """Parse the option, or DATABASE_URL without it.

    Raises:
        BadDatabaseURLError: neither is set, or the one that is cannot be used.

    """
    # Slow to import.
    from migrations.postgres import BadDatabaseURLError, parse_url  # noqa: PLC0415

    if option is not None:
        return parse_url(option)
    environment = os.environ.get("DATABASE_URL", "")
    if not environment.strip():
        raise BadDatabaseURLError(
            "No database is named; set DATABASE_URL, for example to"
            " postgresql://user:password@host/database, or give --database-url."
        )
    return parse_url(environment)
