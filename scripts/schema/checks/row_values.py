"""Rows that are there while revisions are tried: what an upgrade and a downgrade do to them."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from alembic.script import Script
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from migrations.postgres import first_error_line
from schema.access.declared import declared_accesses, declared_samples
from schema.checks.result import Failure
from schema.postgres.connection import describe_error, statement_of
from schema.project import ROOT
from schema.rows.contents import Contents, lost, read_contents
from schema.rows.generator import EACH, Generator
from schema.rows.tables import Check, TableRows, Tables, read_tables
from schema.rows.visibility import all_rows_visible

MERGED = ROOT / "migrations" / "rows.toml"
"""What merged revisions lose and assume, because they cannot be edited any more."""

KEPT_TIME = "app.keep_updated_at"


class RowValues:
    """The rows of a database while its revisions are tried.

    `fill` adds rows where a table is new or has new columns; `compare` says what an upgrade and the
    downgrade after it have lost.
    """

    def __init__(self, connection: Connection) -> None:
        """Use a connection of its own, which commits what it writes."""
        self._connection = connection
        self._tables = Tables((), {})
        self._filled: dict[str, frozenset[str]] = {}
        self._before: Contents = {}
        self._reference = {
            name for name, access in declared_accesses().items() if access.kind == "reference"
        }
        self.discarded: set[str] = set()
        """The tables and columns that a downgrade discards with what was written in them."""

    @property
    def coverage(self) -> tuple[int, int]:
        """How many tables hold rows, and how many there are."""
        held = sum(bool(contents.rows) for contents in self._before.values())
        return held, len(self._before)

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

    def _contents(self, tables: Tables) -> Contents:
        with all_rows_visible(self._connection):
            contents = read_contents(self._connection, tables.tables)
        self._connection.commit()
        return contents

    def _assume(self, table: TableRows, condition: str) -> None:
        """Delete the rows that do not meet the condition, and make others that do."""
        checked = Check("assumed", tuple(column.name for column in table.columns), condition)
        narrowed = replace(table, checks=(*table.checks, checked))
        tables = tuple(narrowed if one.name == table.name else one for one in self._tables.tables)
        delete = f"DELETE FROM {table.sql} WHERE ({condition}) IS FALSE".replace("%", "%%")
        self._connection.exec_driver_sql(delete)
        Generator(
            self._connection,
            replace(self._tables, tables=tables),
            seed="assumed",
            samples=declared_samples(),
        ).fill({table.name: EACH})
        self._connection.exec_driver_sql(delete)

    def upgraded(self, revision: Script) -> Iterator[Failure]:
        """Add rows to what an upgrade made, in the schema as it is now."""
        self._tables = read_tables(self._connection)
        yield from self._fill(revision)

    def upgraded_again(self, revision: Script) -> Iterator[Failure]:
        """Add the rows again that the downgrade discarded; they are there before what follows."""
        yield from self._fill(revision)
        self._before = self._contents(self._tables)

    def _fill(self, revision: Script) -> Iterator[Failure]:
        columns = _columns(self._tables)
        wanted = {
            name: EACH
            for name, now in columns.items()
            if name not in self._reference and not now <= self._filled.get(name, frozenset())
        }
        if wanted:
            generator = Generator(
                self._connection, self._tables, seed="round trip", samples=declared_samples()
            )
            try:
                with all_rows_visible(self._connection):
                    generator.fill(wanted)
            except DBAPIError as error:
                self._connection.rollback()
                yield Failure(
                    f"At {Path(revision.path).name} no rows can be made:"
                    f" {first_error_line(error)}.",
                    "Fix what the statement names, or name samples on the model's column.",
                    statement_of(error),
                )
        self._filled = columns
        self._connection.commit()

    def downgraded(self, revision: Script) -> Iterator[Failure]:
        """Compare the values with those from before the upgrade, and with what is declared."""
        below = read_tables(self._connection)
        after = self._contents(below)
        found = lost(self._before, after)
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
            elif not str(reason).strip():
                yield Failure(f"{name} loses {what} without a reason.", "Say why in `loses`.")
        self._note_discarded(below)

    def _note_discarded(self, below: Tables) -> None:
        """Note what the downgrade discarded, so that it is filled after the next upgrade."""
        there = _columns(below)
        for table, columns in _columns(self._tables).items():
            if table not in there:
                self.discarded.add(table)
            else:
                self.discarded |= {f"{table}.{column}" for column in columns - there[table]}
        self._filled = there


def _columns(tables: Tables) -> dict[str, frozenset[str]]:
    return {
        table.name: frozenset(column.name for column in table.columns) for table in tables.tables
    }


def declared(revision: Script, what: str) -> Mapping[str, str]:
    """Return what a revision declares in `loses` or `assumes`.

    `loses` has a reason for each `table` and `table.column`; `assumes` has, for a table, the
    condition that its rows meet before the upgrade.
    """
    found: dict[str, str] = dict(getattr(revision.module, what, {}))
    if MERGED.exists():
        merged = tomllib.loads(MERGED.read_text(encoding="utf-8"))
        found |= merged.get(revision.revision, {}).get(what, {})
    return found


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
