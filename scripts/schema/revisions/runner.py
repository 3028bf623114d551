"""Running Alembic inside this process, on a connection of ours, through the real env.py."""

from collections.abc import Callable, Iterable

from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection

from schema.project import config

type Steps = Callable[[MigrationContext], Iterable[MigrationStep]]


def run(connection: Connection, scripts: ScriptDirectory, steps: Steps) -> None:
    """Run env.py with these steps, each in a transaction of its own.

    `steps` may be a generator: what stands between two of its steps happens after the first one's
    transaction was committed and before the second one's begins.
    """
    settings = config()
    settings.attributes["connection"] = connection
    with EnvironmentContext(settings, scripts, fn=lambda _revision, context: steps(context)):
        scripts.run_env()
    connection.rollback()  # what Alembic read before the first step, and left open


def upgrade(connection: Connection, scripts: ScriptDirectory) -> None:
    """Upgrade an empty database to the head, as `alembic upgrade head` does."""
    run(connection, scripts, lambda _context: [up(scripts, one) for one in line(scripts)])


def line(scripts: ScriptDirectory) -> list[Script]:
    """List the revisions, oldest first."""
    return list(scripts.walk_revisions())[::-1]


def up(scripts: ScriptDirectory, revision: Script) -> MigrationStep:
    """Apply one revision."""
    return MigrationStep.upgrade_from_script(scripts.revision_map, revision)


def down(scripts: ScriptDirectory, revision: Script) -> MigrationStep:
    """Undo one revision."""
    return MigrationStep.downgrade_from_script(scripts.revision_map, revision)
