"""What an application's start-up assertions say of a database, as a login of the application.

They ask who the session is, so that no SET ROLE can stand for a login.
"""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from migrations.postgres import first_error_line
from schema.errors import CannotRunError
from schema.postgres.connection import connect
from schema.postgres.logins import login
from schema.review.models.program import START_UP
from schema.review.models.statements import ModelStatement, Release
from schema.roles import APPLICATION


@contextmanager
def application_login(owner: URL) -> Iterator[URL]:
    """Make a login in the application's group role for a block; return its URL.

    Raises:
        CannotRunError: the owner may not create it, or there is no such group role.

    """
    made = login(f"schema_review_{secrets.token_hex(6)}", APPLICATION)
    with connect(owner, autocommit=True) as connection:
        try:
            connection.exec_driver_sql(made.statement())
        except DBAPIError as error:
            raise CannotRunError(
                f"The start-up assertions were not tried: {first_error_line(error)}."
            ) from error
        try:
            yield owner.set(username=made.name, password=made.password)
        finally:
            connection.exec_driver_sql(f"DROP ROLE {made.name}")


def try_start_up(
    release: Release, application: URL
) -> Mapping[tuple[ModelStatement, str], tuple[str]]:
    """Run the start-up assertions of a release; return each error, "" for success.

    They see only what is committed. Models without assertions have none.

    Raises:
        CannotRunError: the models cannot be imported.

    """
    url = application.render_as_string(hide_password=False)
    login_name = str(application.username)
    found = release.ask(url) or {}
    return {
        (ModelStatement(name, START_UP, ""), APPLICATION): (_named(str(error), login_name),)
        for name, error in found.items()
    }


def _named(error: str, login_name: str) -> str:
    """Say the same of each run, whose login has a name of its own; without the final stop."""
    for written in (f'"{login_name}"', login_name):
        error = error.replace(written, "the application's login")
    return error.rstrip(".")
