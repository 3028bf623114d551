"""Rows that are there while revisions are tried: what an upgrade and a downgrade do to them."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from alembic.runtime.migration import MigrationContext
from alembic.script import Script
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from migrations.postgres import first_error_line
from schema.access.declared import declared_accesses, declared_samples
from schema.checks import blindness
from schema.checks.result import Failure, RowCoverage
from schema.postgres.connection import describe_error, statement_of
from schema.project import ROOT
from schema.rows.contents import Contents, lost, read_contents
from schema.rows.generator import Generator, Shortage
from schema.rows.maker import EACH
from schema.rows.tables import TableRows, Tables, read_tables
from schema.rows.visibility import all_rows_visible

MERGED = ROOT / "migrations" / "rows.toml"
"""What merged revisions lose and assume, because they cannot be edited any more."""

KEPT_TIME = "app.keep_updated_at"


class RowValues:
    """The rows of a database while its revisions are tried.

    Each method belongs to a place in the walk, and yields what is wrong there: rows are made where
    a table is new or has changed, and what was there before is compared with what is there after.
    """

    def __init__(self, connection: Connection) -> None:
        """Use a connection of its own, which commits what it writes."""
        self._connection = connection
        self._tables = Tables((), {})
        self._filled: dict[str, TableRows] = {}
        self._short: set[str] = set()
        self._blind: blindness.Changed | None = None
        self._before: Contents = {}
        accesses = declared_accesses()
        self._declared = set(accesses)
        self._reference = {name for name, one in accesses.items() if one.kind == "reference"}
        self.discarded: set[str] = set()
        """The tables and columns that a downgrade discards with what was written in them."""
        self.coverage: list[RowCoverage] = []
        """The tables with rows at each revision, as it leaves them to the next one."""

    def assume(self, revision: Script) -> Iterator[Failure]:
        """Leave only rows that meet what a revision assumes of those that were there before it."""
        assumed = declared(revision, "assumes")
        if not assumed:
            return
        try:
            with all_rows_visible(self._connection):
                for name, condition in assumed.items():
                    self._assume(self._tables[name], condition)
        except (DBAPIError, StopIteration) as error:
            self._connection.rollback()
            yield Failure(
                f"What {Path(revision.path).name} assumes cannot be tried:"
                f" {describe_error(error)}.",
                "Give a condition on the rows of a table that is there before the upgrade:"
                ' assumes = {"table": "condition"}.',
            )
        self._connection.commit()
        self._before = self._contents(self._tables)
        for name in assumed:
            if name in self._before and not self._before[name].rows:
                yield Failure(
                    f"No row of {name} meets what {Path(revision.path).name} assumes.",
                    "Assume what rows can meet; otherwise the revision is tried on none.",
                )

    def _contents(self, tables: Tables) -> Contents:
        with all_rows_visible(self._connection):
            contents = read_contents(self._connection, tables.tables)
        self._connection.commit()
        return contents

    def _assume(self, table: TableRows, condition: str) -> None:
        """Delete the rows that do not meet the condition, and make others that do."""
        delete = f"DELETE FROM {table.sql} WHERE ({condition}) IS FALSE".replace("%", "%%")
        self._connection.exec_driver_sql(delete)
        Generator(
            self._connection,
            self._tables.narrowed(table.name, condition),
            seed="assumed",
            samples=declared_samples(),
        ).fill({table.name: EACH})
        self._connection.exec_driver_sql(delete)

    def before_upgrade(self, revision: Script, context: MigrationContext) -> None:
        """Try the upgrade as an owner that obeys row security, if it changes rows."""
        self._blind = (
            blindness.try_blind(self._connection, revision, self._before, context)
            if blindness.changes_rows(revision)
            else None
        )

    def upgraded(self, revision: Script, *, reversible: bool) -> Iterator[Failure]:
        """Add rows to what an upgrade made, in the schema as it is now.

        If it cannot be reverted, its losses show here; a value where none was is no loss.
        """
        self._tables = read_tables(self._connection)
        self._reference |= self._filled_by_revision()
        if self._blind is not None or not reversible:
            after = self._contents(self._tables)
            if self._blind is not None:
                really = blindness.changed(self._before, after)
                yield from blindness.compare(revision, self._blind, really)
            if not reversible:
                yield from _compare(revision, lost(self._before, after, filling=True))
        yield from self._fill(revision)

    def _filled_by_revision(self) -> set[str]:
        """Return the new tables whose rows came with the revision.

        No model declares a table that a later revision drops, so its rows say what it was.
        """
        new = [
            table
            for table in self._tables.tables
            if table.name not in self._declared and table.name not in self._filled
        ]
        if not new:
            return set()
        with all_rows_visible(self._connection):
            contents = read_contents(self._connection, new)
        return {name for name, one in contents.items() if one.rows}

    def upgraded_again(self, revision: Script) -> Iterator[Failure]:
        """Add the rows again that the downgrade discarded; they are there before what follows."""
        yield from self._fill(revision)
        self._before = self._contents(self._tables)
        empty = sorted(name for name, contents in self._before.items() if not contents.rows)
        self.coverage.append(RowCoverage(revision.revision, len(self._before), empty))

    def _fill(self, revision: Script) -> Iterator[Failure]:
        # A table whose types or constraints have changed gets rows that use what is new.
        wanted = {
            table.name: EACH
            for table in self._tables.tables
            if table.name not in self._reference
            and (table.name in self._short or self._filled.get(table.name) != table)
        }
        if wanted:
            generator = Generator(
                self._connection, self._tables, seed="round trip", samples=declared_samples()
            )
            try:
                with all_rows_visible(self._connection):
                    generator.fill(wanted)
                self._short = {one.table for one in generator.shortages}
                yield from _shortages(revision, generator.shortages)
            except DBAPIError as error:
                self._connection.rollback()
                yield Failure(
                    f"At {Path(revision.path).name} no rows can be made:"
                    f" {first_error_line(error)}.",
                    "Fix what the statement names, or name samples on the model's column.",
                    statement_of(error),
                )
        self._filled = {table.name: table for table in self._tables.tables}
        self._connection.commit()

    def downgraded(self, revision: Script) -> Iterator[Failure]:
        """Compare the values with those from before the upgrade, and with what is declared."""
        below = read_tables(self._connection)
        after = self._contents(below)
        yield from _compare(revision, lost(self._before, after))
        self._note_discarded(below)

    def _note_discarded(self, below: Tables) -> None:
        """Note what the downgrade discarded, so that it is filled after the next upgrade."""
        there = _columns(below)
        for table, columns in _columns(self._tables).items():
            if table not in there:
                self.discarded.add(table)
            else:
                self.discarded |= {f"{table}.{column}" for column in columns - there[table]}
        self._filled = {table.name: table for table in below.tables}


def _shortages(revision: Script, shortages: Sequence[Shortage]) -> Iterator[Failure]:
    """Report the tables that stay empty, except those whose parents do."""
    for one in shortages:
        if not one.of_parents:
            yield Failure(
                f"At {Path(revision.path).name} nothing can be tried on rows of {one.table}:"
                f" {one.why}",
                "Name samples on the model's column, or change the constraint.",
            )


def _compare(revision: Script, found: Mapping[str, int]) -> Iterator[Failure]:
    """Compare what a revision loses with what it declares."""
    named = declared(revision, "loses")
    name = Path(revision.path).name
    for what, rows in sorted(found.items()):
        if what not in named:
            yield _lost(name, what, rows)
    for what, reason in sorted(named.items()):
        if what not in found:
            yield Failure(
                f"{name} declares that it loses {what}, but it does not.",
                "Remove it from `loses`.",
            )
        elif not reason.strip():
            yield Failure(f"{name} loses {what} without a reason.", "Say why in `loses`.")


def _columns(tables: Tables) -> dict[str, frozenset[str]]:
    return {
        table.name: frozenset(column.name for column in table.columns) for table in tables.tables
    }


def declared(revision: Script, what: str) -> Mapping[str, str]:
    """Return what a revision declares in `loses` or `assumes`.

    `loses` has a reason for each `table` and `table.column`; `assumes` has, for a table, the
    condition that its rows meet before the upgrade.
    """
    own = getattr(revision.module, what, {})
    merged = _merged().get(revision.revision, {}).get(what, {})
    return {
        str(name): value if isinstance(value, str) else ""
        for found in (own, merged)
        if isinstance(found, dict)
        for name, value in found.items()
    }


def malformed(revisions: Sequence[Script]) -> Iterator[Failure]:
    """Report declarations that cannot be read, or that belong to no revision."""
    for revision in revisions:
        for what in ("loses", "assumes"):
            if not isinstance(getattr(revision.module, what, {}), dict):
                yield Failure(
                    f"`{what}` of {Path(revision.path).name} is no dict.",
                    f'Write {what} = {{"table": "…"}}.',
                )
    try:
        known = {revision.revision for revision in revisions}
        for name in sorted(_merged().keys() - known):
            yield Failure(
                f"{MERGED.name} names {name}, which is no revision.", "Correct or remove it."
            )
    except tomllib.TOMLDecodeError as error:
        yield Failure(f"{MERGED.name} cannot be read: {error}.", "Correct it.")


def _merged() -> dict[str, dict[str, dict[str, str]]]:
    return tomllib.loads(MERGED.read_text(encoding="utf-8")) if MERGED.exists() else {}


def _lost(name: str, what: str, rows: int) -> Failure:
    column = what.rpartition(".")[2]
    if column in {"updated_at", "updatedAt"}:
        return Failure(
            f"After the upgrade and downgrade of {name}, {what} has changed in {rows} rows.",
            "A backfill is no change by a user: before it,"
            f" SELECT set_config('{KEPT_TIME}', 'on', true).",
        )
    kind = "values" if "." in what else "rows"
    return Failure(
        f"The upgrade and downgrade of {name} lose the {kind} of {what} ({rows} rows).",
        "Keep them where the downgrade finds them, or declare it in the revision:"
        f' loses = {{"{what}": "why that is right"}}.',
    )
