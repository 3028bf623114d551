"""Try the written files on a copy of the history, with rows: each up, down and up again."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import Script, ScriptDirectory
from sqlalchemy import URL, Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from migrations import snapshot
from migrations.snapshot import Snapshot
from schema.access.declared import declared_samples
from schema.errors import CannotRunError
from schema.postgres.connection import connect, describe_error, driver_of
from schema.revision.files import revisions
from schema.revisions.history import is_irreversible
from schema.revisions.runner import downgrade_step, run, upgrade_step
from schema.rows.assumed import leave_only
from schema.rows.contents import Contents, lost, read_contents
from schema.rows.generator import Generator
from schema.rows.tables import read_tables

_EACH = 6
"""Generated rows of each table."""


class FailsOnRowsError(CannotRunError):
    """A file fails on generated rows, which are valid and yet stand in its way."""


def try_files(
    copy: URL, directory: ScriptDirectory, paths: Sequence[Path], both: tuple[Snapshot, Snapshot]
) -> None:
    """Run the files on a database at the revision before them; `both` are the schemas around them.

    Raises:
        FailsOnRowsError: a file fails on the database's rows.
        CannotRunError: a file fails, or the schema is not what it should be.

    """
    before, target = both
    new = revisions(directory, paths)
    found: list[tuple[str, Snapshot, Snapshot]] = []
    losses: set[str] = set()

    def steps(_context: MigrationContext) -> Iterator[MigrationStep]:
        with connect(copy, autocommit=True) as observer:
            at = before
            for one in new:
                leave_only(driver_of(observer), getattr(one.module, "assumes", {}))
                rows = _contents(observer)
                yield upgrade_step(directory, one)
                if is_irreversible(one):
                    losses.update(_undeclared(one, lost(rows, _contents(observer), filling=True)))
                else:
                    yield downgrade_step(directory, one)
                    now = snapshot.read(observer, version_table=True)
                    found.append((f"the downgrade of {Path(one.path).name}", at, now))
                    losses.update(_undeclared(one, lost(rows, _contents(observer))))
                    yield upgrade_step(directory, one)
                at = snapshot.read(observer, version_table=True)
            found.append(("the upgrade", target, at))

    with connect(copy) as connection:
        try:
            run(connection, directory, steps)
        except (IntegrityError, DataError) as error:
            raise FailsOnRowsError(describe_error(error)) from error
        except Exception as error:  # a revision may raise anything
            raise CannotRunError(
                f"Nothing is written: what would be written fails ({describe_error(error)})."
            ) from error
    if losses:
        options = " ".join(f"--drop {one}='why they are not needed'" for one in sorted(losses))
        raise CannotRunError(
            f"Nothing is written: the values of {', '.join(sorted(losses))} are lost, and no"
            f" downgrade brings them back. If that is right, say so: {options}."
        )
    for what, expected, now in found:
        if now != expected:
            raise CannotRunError(
                f"Nothing is written: {what} does not lead to the schema that it should:\n"
                f"{snapshot.difference(expected, now)}"
            )


def fill(copy: URL) -> None:
    """Make rows in each table that has none, where rows can be made."""
    with connect(copy) as connection:
        generator = Generator(
            connection, read_tables(connection), seed="revision", samples=declared_samples()
        )
        empty = {one.name: _EACH for one in generator.tables.tables if not generator.rows(one.name)}
        with suppress(DBAPIError):  # `schema check` says for which table, and what to do
            generator.fill(empty)
            connection.commit()


def _contents(observer: Connection) -> Contents:
    return read_contents(observer, read_tables(observer).tables)


def _undeclared(revision: Script, found: Mapping[str, int]) -> set[str]:
    """Return what a revision loses and does not declare."""
    declared = getattr(revision.module, "loses", {})
    tables = {one.partition(".")[0] for one in declared}  # rows without a key are gone as a whole
    return {one for one in found if one not in declared and one.partition(".")[0] not in tables}
