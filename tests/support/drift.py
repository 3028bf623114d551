"""Compare a live database as the command does, and paste its SQL as a person would."""

from sqlalchemy import URL

from schema.live import drift
from schema.postgres.connection import connect, driver_of
from schema.project import scripts


def examine(url: URL) -> drift.Drift:
    """Do the same as `schema drift`."""
    return drift.examine(url, scripts(), lambda _step: None)


def paste(url: URL, script: str) -> None:
    """Execute a script of several statements."""
    with connect(url, autocommit=True) as connection:
        driver_of(connection).execute(script.encode())
