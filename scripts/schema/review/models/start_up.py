"""What an application's start-up assertions say of a database, as a login of the application.

They ask who the session is, so that no SET ROLE can stand for a login.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from sqlalchemy import URL

from schema.postgres.logins import temporary_login
from schema.review.models.program import START_UP
from schema.review.models.statements import ModelStatement, Release
from schema.roles import APPLICATION


def application_login(owner: URL) -> AbstractContextManager[URL]:
    """Make a login in the application's group role for a block; return its URL.

    Raises:
        CannotRunError: the owner may not create it, or there is no such group role.

    """
    return temporary_login(owner, "schema_review", APPLICATION)


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
