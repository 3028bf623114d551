"""Build the schema, let Better Auth compare it with a configuration, and add what is missing."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from sqlalchemy import URL

from schema.better_auth import found, trial
from schema.better_auth.differences import NOT_NEEDED, Difference, compare
from schema.better_auth.needs import Needs
from schema.better_auth.process import ask
from schema.better_auth.writing import draft
from schema.errors import CannotRunError
from schema.generate.files import replace
from schema.postgres.connection import describe_error
from schema.postgres.logins import temporary_login
from schema.postgres.scratch import Server
from schema.revisions.runner import upgrade_database
from schema.roles import BETTER_AUTH

type Progress = Callable[[str], None]


@dataclass(frozen=True)
class Examination:
    """What was found about a configuration."""

    needs: Needs
    differences: list[Difference]


@dataclass(frozen=True)
class Written:
    """What was added to the models."""

    files: dict[Path, bool]
    """The files that were written, and whether each is new."""
    refused: list[str]
    """What was not added, and why, a sentence each without the final stop."""
    complete: bool
    """Whether the models now are what the configuration needs."""


def examine(server: Server, config: Path, progress: Progress) -> Examination:
    """Compare the configuration with the history at its head, as Better Auth's login.

    Raises:
        CannotRunError: the configuration cannot be read, or the history or the models are broken.

    """
    try:
        import_module("models")
    except Exception as error:  # a model may raise whatever it likes
        raise CannotRunError(
            f"The models cannot be imported ({describe_error(error)}); fix them first."
        ) from error
    with server.database() as head:
        progress("the history")
        build(head)
        progress("Better Auth")
        with temporary_login(head, "schema_better_auth", BETTER_AUTH) as login:
            needs = ask(config, login)
        return Examination(needs, compare(needs, found.read(head), found.declared()))


def write(server: Server, examination: Examination, progress: Progress) -> Written:
    """Add to the models what they lack, after a trial; what differs otherwise stays.

    Raises:
        CannotRunError: the models would not build what Better Auth needs, and nothing was written;
            or a file cannot be written.

    """
    planned = draft(examination.needs, examination.differences)
    if planned.files:
        progress("the models")
        left = trial.lacking(server, examination.needs, planned.files)
        if unexpected := [one for one in left if not any(one in said for said in planned.refused)]:
            raise CannotRunError(
                f"The models would still lack something, so nothing was written: {unexpected[0]}."
            )
    files = {path: not path.exists() for path in planned.files}
    for path, text in planned.files.items():
        replace(path, text)
    unused = [
        one for one in examination.differences if one.kind in NOT_NEEDED and one.where != "history"
    ]
    return Written(files, planned.refused, not planned.refused and not unused)


def build(empty: URL) -> None:
    """Build the history in an empty database.

    Raises:
        CannotRunError: a revision fails.

    """
    try:
        upgrade_database(empty)
    except Exception as error:  # a revision may raise whatever it likes
        raise CannotRunError(
            f"The history does not build ({describe_error(error)}); run schema check."
        ) from error
