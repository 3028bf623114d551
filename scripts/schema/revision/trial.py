"""Try the written files on a copy of the history, with rows: each up, down and up again."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from alembic.runtime.migration import MigrationStep
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


type Filled = Mapping[str, tuple[str, str]]
"""By a file's name, the table and the column that has a value in every row after it."""


def try_files(
    copy: URL,
    directory: ScriptDirectory,
    paths: Sequence[Path],
    both: tuple[Snapshot, Snapshot],
    filled: Filled,
) -> None:
    """Run the files on a database at the revision before them; `both` are the schemas around them.

    Raises:
        FailsOnRowsError: an upgrade fails on the database's rows.
        CannotRunError: a file fails, or the schema or the rows are not what they should be.

    """
    trial = _Trial(directory, revisions(directory, paths), both, filled)
    with connect(copy) as connection:
        try:
            run(connection, directory, lambda _context: trial.steps(copy))
        except CannotRunError:
            raise
        except (IntegrityError, DataError) as error:
            if not trial.reverting:
                raise FailsOnRowsError(describe_error(error)) from error
            raise CannotRunError(
                f"Nothing is written: the downgrade of {trial.reverting} fails on rows"
                f" ({describe_error(error)}). Give --using an expression whose results can be cast"
                " back, or the new column another name, with renamed_from."
            ) from error
        except Exception as error:  # a revision may raise anything
            raise CannotRunError(
                f"Nothing is written: what would be written fails ({describe_error(error)})."
            ) from error
    trial.require_success()


@dataclass
class _Trial:
    """What the files did."""

    directory: ScriptDirectory
    new: Sequence[Script]
    both: tuple[Snapshot, Snapshot]
    filled: Filled
    reverting: str = ""
    """The file whose downgrade runs."""
    reached: list[tuple[str, Snapshot, Snapshot]] = field(default_factory=list)
    """What ran, the schema that it should lead to, and the one that it led to."""
    losses: set[str] = field(default_factory=set)

    def steps(self, copy: URL) -> Iterator[MigrationStep]:
        """Yield the steps, and look at the database between them."""
        at, target = self.both
        with connect(copy, autocommit=True) as observer:
            for one in self.new:
                name = Path(one.path).name
                leave_only(driver_of(observer), getattr(one.module, "assumes", {}))
                rows = _contents(observer)
                yield upgrade_step(self.directory, one)
                if name in self.filled:
                    _require_values(observer, *self.filled[name])
                if is_irreversible(one):
                    found = lost(rows, _contents(observer), filling=True)
                else:
                    self.reverting = name
                    yield downgrade_step(self.directory, one)
                    self.reverting = ""
                    now = snapshot.read(observer, version_table=True)
                    self.reached.append((f"the downgrade of {name}", at, now))
                    found = lost(rows, _contents(observer))
                    yield upgrade_step(self.directory, one)
                self.losses |= _undeclared(one, found)
                at = snapshot.read(observer, version_table=True)
            self.reached.append(("the upgrade", target, at))

    def require_success(self) -> None:
        """Refuse files that lose values, or that lead elsewhere.

        Raises:
            CannotRunError: they do.

        """
        if self.losses:
            names = sorted(self.losses)
            options = " ".join(f"--drop {one}='why they are not needed'" for one in names)
            raise CannotRunError(
                f"Nothing is written: the values of {', '.join(names)} are lost, and no downgrade"
                f" brings them back. If that is right, say so: {options}."
            )
        for what, expected, now in self.reached:
            if now != expected:
                raise CannotRunError(
                    f"Nothing is written: {what} does not lead to the schema that it should:\n"
                    f"{snapshot.difference(expected, now)}"
                )


def _require_values(observer: Connection, table: str, column: str) -> None:
    query = f"SELECT EXISTS (SELECT FROM {table} WHERE {column} IS NULL)"
    found = driver_of(observer).execute(query.encode()).fetchone()
    if found is not None and found[0]:
        raise CannotRunError(
            f"Nothing is written: --fill leaves {table}.{column} without a value in a row; give an"
            " expression that is never NULL, such as coalesce(…, '')."
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
