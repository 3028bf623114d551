"""The models are what the migrations build: by Alembic's own comparison, and fact by fact."""

from collections.abc import Iterable
from importlib import import_module

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from schema.text import pluralize
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from migrations import snapshot
from migrations.postgres import first_error_line
from schema.access import probe
from schema.checks.result import CheckResult, Failure
from schema.generate import files
from schema.postgres.connection import connect, statement_of
from schema.revisions.runner import run

REMEDY = (
    "Where the models are right, write a revision: start `schema serve`, set DATABASE_URL to what"
    ' it prints, and run `alembic revision --autogenerate -m "…"`. Otherwise mend the models.'
)


def autogenerate(head: URL, scripts: ScriptDirectory) -> CheckResult:
    """Prove that Alembic, asked for a revision that leads to the models, has nothing to write.

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


def snapshots(migrated: snapshot.Snapshot, empty: URL) -> CheckResult:
    """Prove that `metadata.create_all` on an empty database builds the very same schema."""
    models = import_module("models")
    covered = pluralize(len(migrated), "fact")
    with connect(empty) as connection:
        try:
            models.metadata.create_all(connection)
        except DBAPIError as error:
            message = f"metadata.create_all fails: {first_error_line(error)}."
            return CheckResult(covered, [Failure(message, "Mend the models.", statement_of(error))])
        created = snapshot.read(connection)
    if created == migrated:
        return CheckResult(covered)
    message = "The models build another schema (+) than the migrations do (-)."
    return CheckResult(covered, [Failure(message, REMEDY, snapshot.difference(migrated, created))])


def committed(head: URL, scripts: ScriptDirectory, found: probe.ProbeResult) -> CheckResult:
    """Prove that the files written from the migrations are what the migrations build."""
    remedy = "Run `schema snapshot`, read what it changes (git diff), and commit it."
    failures = []
    files = files.render(head, scripts, found.accesses)
    for path, text in files.items():
        name, before = files.name(path), files.read(path)
        if not before:
            failures.append(Failure(f"{name} is missing.", remedy))
        elif before != text:
            message = f"{name} (-) is not what the migrations build (+)."
            detail = files.difference(path, before, text)
            failures.append(Failure(message, remedy, detail))
    covered = ", ".join(path.name for path in files)
    return CheckResult(covered, failures)
