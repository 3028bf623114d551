"""Run Alembic in this process, on a given connection, with the project's env.py."""

from collections.abc import Callable, Collection, Iterable

from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import Script, ScriptDirectory
from sqlalchemy import URL, Connection

from schema.postgres.connection import connect
from schema.project import config
from schema.project import scripts as script_directory
from schema.revisions.history import revisions_oldest_first

type Steps = Callable[[MigrationContext], Iterable[MigrationStep]]


def run(connection: Connection, scripts: ScriptDirectory, steps: Steps) -> None:
    """Run env.py with these steps, each in its own transaction.

    If `steps` is a generator, its code between two steps runs after the commit of the first one and
    before the second one begins.
    """
    settings = config()
    settings.attributes["connection"] = connection
    with EnvironmentContext(settings, scripts, fn=lambda _revision, context: steps(context)):
        scripts.run_env()
    connection.rollback()  # Alembic leaves the transaction open in which it read the revision


def upgrade(
    connection: Connection,
    scripts: ScriptDirectory,
    revisions: Collection[str] | None = None,
) -> None:
    """Upgrade an empty database to the head, as `alembic upgrade head` does.

    With `revisions`, run only these: the next ones of the database.
    """
    steps = [
        upgrade_step(scripts, one)
        for one in revisions_oldest_first(scripts)
        if revisions is None or one.revision in revisions
    ]
    run(connection, scripts, lambda _context: steps)


def upgrade_database(url: URL) -> None:
    """Upgrade an empty database to the head."""
    with connect(url) as connection:
        upgrade(connection, script_directory())


def upgrade_step(scripts: ScriptDirectory, revision: Script) -> MigrationStep:
    """Apply one revision."""
    return MigrationStep.upgrade_from_script(scripts.revision_map, revision)


def downgrade_step(scripts: ScriptDirectory, revision: Script) -> MigrationStep:
    """Revert one revision."""
    return MigrationStep.downgrade_from_script(scripts.revision_map, revision)
