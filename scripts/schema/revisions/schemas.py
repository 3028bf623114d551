"""The schema at each revision of the history, read while it is built."""

from collections.abc import Iterator, Mapping

from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from sqlalchemy import URL

from migrations import snapshot
from migrations.snapshot.fingerprints import BASE
from schema.errors import CannotRunError
from schema.postgres.connection import connect, describe_error
from schema.revisions.history import revisions_oldest_first
from schema.revisions.runner import run, upgrade_step

type Schemas = Mapping[str, snapshot.Snapshot]
"""The schema at BASE and at each revision, oldest first, with Alembic's own table."""


def build(empty: URL, scripts: ScriptDirectory) -> Schemas:
    """Upgrade an empty database to the head, and read the schema at BASE and at each revision.

    Raises:
        CannotRunError: a revision fails.

    """
    built: dict[str, snapshot.Snapshot] = {}
    with connect(empty) as connection, connect(empty, autocommit=True) as observer:

        def steps(_context: MigrationContext) -> Iterator[MigrationStep]:
            # Alembic has made its table, perhaps without a commit: `observer` may not see it.
            built[BASE] = snapshot.read(connection, version_table=True)
            for revision in revisions_oldest_first(scripts):
                yield upgrade_step(scripts, revision)
                # Alembic resumes this generator after it has committed the step.
                built[revision.revision] = snapshot.read(observer, version_table=True)

        try:
            run(connection, scripts, steps)
        except Exception as error:  # a revision may raise anything
            raise CannotRunError(
                f"The history does not build ({describe_error(error)}); run schema check."
            ) from error
        connection.commit()
    return built
