"""Access and the models' statements, tried on a small database before the revisions and after."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import URL

from schema.errors import CannotRunError
from schema.postgres.connection import connect, describe_error
from schema.postgres.scratch import Server
from schema.review.access.changes import changes
from schema.review.access.trial import Access, Settings, platform_roles, read_access
from schema.review.declarations import declared
from schema.review.execution import databases
from schema.review.models.compatibility import Compatibility
from schema.review.pull_request import PullRequest
from schema.review.result import AccessChange, Break, Finding
from schema.revisions.runner import upgrade
from schema.rows.assumed import leave_only
from schema.rows.generator import Generator
from schema.rows.tables import read_tables

SETTING = "app.user_id"
"""The setting that says who acts."""
NO_USER = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Tried:
    """What the trial has shown."""

    access: tuple[AccessChange, ...] = ()
    unsafe: tuple[str, ...] = ()
    """New functions with their owner's rights and their caller's search_path."""
    breaks: tuple[Break, ...] = ()
    statements: int = 0
    """How many statements of the models were executed on both schemas."""
    findings: tuple[Finding, ...] = ()
    """A revision that fails on a few awkward rows."""
    not_covered: Sequence[str] = ()


def try_small(server: Server, pull_request: PullRequest, models: Compatibility) -> Tried:
    """Try what the roles can do and what both releases execute, before and after.

    Raises:
        CannotRunError: the server is not an embedded one, or a role cannot be acted as.

    """
    if server.superuser is None:
        raise CannotRunError("Access is tried on an embedded server, as its superuser.")
    with databases.small(server, pull_request) as ground:
        superuser = server.superuser.set(database=ground.url.database)
        with databases.session(superuser) as session:
            platform = platform_roles(session)
        settings: Settings = {SETTING: [*_users(ground.url), NO_USER]}
        before = _access(superuser, settings, platform)
        with connect(ground.url) as connection:
            models.before(connection)
        for one in pull_request.new:
            try:
                with connect(ground.url) as connection, databases.session(ground.url) as session:
                    leave_only(session, declared(one, "assumes"))
                    upgrade(connection, pull_request.scripts, [one.revision])
            except Exception as error:  # noqa: BLE001  # a revision may raise whatever it likes
                return _failed(one.revision, describe_error(error))
        shortages = databases.fill_empty(ground.url)
        after = _access(superuser, settings, platform)
        with connect(ground.url) as connection:
            breaks = models.after(connection)
    return Tried(
        access=changes(before, after),
        unsafe=tuple(sorted(after.unsafe - before.unsafe)),
        breaks=breaks,
        statements=models.count,
        not_covered=(*shortages, *models.not_covered),
    )


def _failed(revision: str, error: str) -> Tried:
    finding = Finding(
        "fails",
        revision,
        revision,
        f"The upgrade fails on a few rows at the boundaries of what is valid: {error}.",
        "schema check tries the same, and says more.",
    )
    return Tried(
        findings=(finding,), not_covered=("access and compatibility: a revision fails before",)
    )


def _access(superuser: URL, settings: Settings, platform: Sequence[str]) -> Access:
    with databases.session(superuser) as session:
        return read_access(session, settings, platform)


def _users(url: URL) -> list[str]:
    with connect(url) as connection:
        return Generator(connection, read_tables(connection)).users[:2]
