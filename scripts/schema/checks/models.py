"""The models are what the migrations build: by Alembic's own comparison, and fact by fact."""

from collections.abc import Iterable
from importlib import import_module

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from migrations import snapshot
from migrations.postgres import first_error_line
from schema.checks.result import CheckResult, Failure
from schema.postgres.connection import connect, statement_of
from schema.revisions.runner import run
from schema.text import pluralize

REMEDY = (
    "Where the models are right, write a revision: start `schema serve`, set DATABASE_URL to what"
    ' it prints, and run `alembic revision --autogenerate -m "…"`. Otherwise fix the models.'
)


def autogenerate(head: URL, scripts: ScriptDirectory) -> CheckResult:
    """Check that Alembic, asked for a revision that leads to the models, has nothing to write.

    It compares tables, columns, types, defaults, keys, indexes, CHECK constraints (by name) and
    comments, with the settings of env.py.
    """
    code = ""
    tables = 0

    def steps(context: MigrationContext) -> Iterable[MigrationStep]:
        nonlocal code, tables
        metadata = context.opts["target_metadata"]
        tables = len(metadata.tables)
        operations = produce_migrations(context, metadata).upgrade_ops
        if operations is not None and not operations.is_empty():
            # A context of its own: this one is not meant to render outside of a revision.
            rendering = MigrationContext.configure(context.connection)
            code = render_python_code(operations, migration_context=rendering)
        return ()

    with connect(head) as connection:
        run(connection, scripts, steps)
    failures = []
    if code:
        message = "The models are not what the migrations build; this would lead from one to the"
        failures.append(Failure(f"{message} other.", REMEDY, code))
    return CheckResult(f"{pluralize(tables, 'table')}: types, defaults, checks, comments", failures)


def create_all(migrated: snapshot.Snapshot, empty: URL) -> CheckResult:
    """Check that `metadata.create_all` on an empty database builds the very same schema."""
    models = import_module("models")
    covered = pluralize(len(migrated), "fact")
    with connect(empty) as connection:
        try:
            models.metadata.create_all(connection)
        except DBAPIError as error:
            message = f"metadata.create_all fails: {first_error_line(error)}."
            return CheckResult(covered, [Failure(message, "Fix the models.", statement_of(error))])
        created = snapshot.read(connection)
    if created == migrated:
        return CheckResult(covered)
    message = "The models build another schema (+) than the migrations do (-)."
    return CheckResult(covered, [Failure(message, REMEDY, snapshot.difference(migrated, created))])
