"""The models equal the migrations: compared by Alembic, and by snapshot."""

from collections.abc import Iterable
from importlib import import_module

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, IdentifierError

from migrations import snapshot
from migrations.postgres import first_error_line
from schema.checks.result import CheckResult, Failure
from schema.postgres.connection import connect, statement_of
from schema.revisions.runner import run
from schema.text import pluralize

REMEDY = (
    'If the models are right, write the revision: schema revision -m "…". Otherwise fix the models.'
)

_ALEMBICS_OWN = ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"]
"""Alembic's own comparison, a second opinion beside `create_all`."""


def autogenerate(head: URL, scripts: ScriptDirectory) -> CheckResult:
    """Check that Alembic's own comparison finds nothing.

    It compares tables, columns, types, defaults, keys, indexes, CHECK constraints (by name) and
    comments. The plugin that env.py selects finds what `create_all` below finds.
    """
    code = ""
    tables = 0

    def steps(context: MigrationContext) -> Iterable[MigrationStep]:
        nonlocal code, tables
        metadata = import_module("models").metadata
        tables = len(metadata.tables)
        context.opts |= {
            "autogenerate_plugins": _ALEMBICS_OWN,
            "include_schemas": True,
        }
        operations = produce_migrations(context, metadata).upgrade_ops
        if operations is not None and not operations.is_empty():
            # This context can render only inside a revision.
            rendering = MigrationContext.configure(context.connection)
            code = render_python_code(operations, migration_context=rendering)
        return ()

    failures = []
    with connect(head) as connection:
        try:
            run(connection, scripts, steps)
        except IdentifierError as error:
            failures.append(Failure(f"The models cannot be compared: {error}.", "Fix the models."))
    if code:
        message = "The models and the migrations differ; autogenerate would write this revision."
        failures.append(Failure(message, REMEDY, code))
    return CheckResult(f"{pluralize(tables, 'table')}: types, defaults, checks, comments", failures)


def create_all(migrated: snapshot.Snapshot, empty: URL) -> CheckResult:
    """Check that `metadata.create_all` builds the same schema as the migrations."""
    models = import_module("models")
    covered = pluralize(len(migrated), "fact")
    with connect(empty) as connection:
        try:
            models.metadata.create_all(connection)
        except (DBAPIError, IdentifierError, ValueError) as error:
            message = f"metadata.create_all fails: {first_error_line(error)}."
            return CheckResult(covered, [Failure(message, "Fix the models.", statement_of(error))])
        created = snapshot.read(connection)
    if created == migrated:
        return CheckResult(covered)
    message = "The models build a different schema (+) than the migrations (-)."
    difference = snapshot.difference(migrated, created)
    return CheckResult(covered, [Failure(message, REMEDY, difference)])
