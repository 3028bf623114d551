"""The databases that a review works on: one with many rows, and a small one to try access on."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from alembic.runtime.migration import MigrationContext
from alembic.script import Script
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from migrations.postgres import first_error_line
from schema.access.declared import declared_samples
from schema.errors import CannotRunError
from schema.postgres.connection import connect, driver_of
from schema.postgres.scratch import Server
from schema.review.declarations import declared
from schema.review.pull_request import PullRequest
from schema.revisions.runner import upgrade
from schema.rows.assumed import leave_only
from schema.rows.generator import Generator, Samples
from schema.rows.maker import EACH
from schema.rows.tables import read_tables
from schema.text import pluralize


@dataclass(frozen=True)
class Ground:
    """A database at the revision below the new ones."""

    url: URL
    generated: bool
    """Whether its rows were generated; otherwise it was given, and its values are never shown."""
    shortages: tuple[str, ...] = ()
    """The tables for which no row could be made, as sentences."""


@contextmanager
def session(url: URL) -> Iterator[psycopg.Connection[Any]]:
    """Connect with the driver alone, in autocommit mode."""
    with connect(url, autocommit=True) as connection:
        driver = driver_of(connection)
        driver.prepare_threshold = None  # statements see tables that change between them
        yield driver


@contextmanager
def scratch(server: Server, pull_request: PullRequest, rows: int) -> Iterator[Ground]:
    """Make a database with about so many generated rows in all its tables.

    Raises:
        CannotRunError: the merged revisions do not build.

    """
    with server.database() as url:
        _build(url, pull_request)
        yield Ground(url, generated=True, shortages=_fill(url, rows))


@contextmanager
def small(server: Server, pull_request: PullRequest) -> Iterator[Ground]:
    """Make a database with a few awkward rows of each owner in every table."""
    with server.database() as url:
        _build(url, pull_request)
        yield Ground(url, generated=True, shortages=fill_empty(url))


def given(url: URL, pull_request: PullRequest) -> Ground:
    """Bring a database that may be changed to the revision below the new ones.

    Raises:
        CannotRunError: it is not at one of the merged revisions.

    """
    with connect(url) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        connection.rollback()
        merged = [one.revision for one in pull_request.merged]
        if current is not None and current not in merged:
            known = current in {one.revision for one in pull_request.new}
            raise CannotRunError(
                f"The database is at {current}, which "
                + (
                    "is one of the new revisions: reset the branch first, schema branch reset."
                    if known
                    else "is not in this checkout: merge main, then schema rebase."
                )
            )
        missing = merged[merged.index(current) + 1 :] if current else merged
        if missing:
            try:
                upgrade(connection, pull_request.scripts, missing)
            except DBAPIError as error:
                raise CannotRunError(
                    f"The database could not be brought to {merged[-1]}: {first_error_line(error)}."
                ) from error
    return Ground(url, generated=False)


def fill_empty(url: URL) -> tuple[str, ...]:
    """Make a few rows in each table that has none; return what could not be made."""
    with connect(url) as connection:
        generator = Generator(connection, read_tables(connection), seed="review", samples=samples())
        empty = {one.name: EACH for one in generator.tables.tables if not generator.rows(one.name)}
        generator.fill(empty)
        connection.commit()
        return tuple(map(str, generator.shortages))


def assume_and_refill(url: URL, revision: Script, rows: Mapping[str, int]) -> tuple[str, ...]:
    """Leave only rows that meet what a revision assumes, and make others in place of the rest.

    `rows` counts those of each table before. Returns, as sentences, where fewer than half were
    found again.
    """
    with session(url) as opened:
        leave_only(opened, declared(revision, "assumes"))
    short = []
    for name, condition in declared(revision, "assumes").items():
        with connect(url) as connection:
            tables = read_tables(connection)
            if name not in tables:
                continue
            generator = Generator(
                connection, tables.narrowed(name, condition), seed="assumed", samples=samples()
            )
            before, wanted = len(generator.rows(name)), rows.get(name, 0)
            generator.spread({name: max(0, wanted - before)})
            connection.commit()
            now = len(generator.rows(name))
            if now < wanted / 2:
                short.append(
                    f"{name} at its size: only {now:,} of {wanted:,} generated rows meet what"
                    f" {revision.revision} assumes"
                )
    return tuple(short)


def samples() -> Samples:
    """Return the samples that the models name; none if the models cannot be imported."""
    try:
        return declared_samples()
    except Exception:  # noqa: BLE001  # a model may raise whatever it likes; `check` reports it
        return {}


def _build(url: URL, pull_request: PullRequest) -> None:
    try:
        with connect(url) as connection:
            merged = [one.revision for one in pull_request.merged]
            if merged:
                upgrade(connection, pull_request.scripts, merged)
    except Exception as error:
        number = pluralize(len(pull_request.merged), "merged revision")
        raise CannotRunError(f"The {number} cannot be applied; run schema check.") from error


def _fill(url: URL, rows: int) -> tuple[str, ...]:
    """Spread the rows over all tables, but those whose rows came with the revisions."""
    with connect(url) as connection:
        generator = Generator(connection, read_tables(connection), seed="review", samples=samples())
        empty = [one.name for one in generator.tables.tables if not generator.rows(one.name)]
        generator.spread({name: rows // len(empty) for name in empty})
        connection.commit()
        shortages = tuple(map(str, generator.shortages))
    with session(url) as opened:
        opened.execute("VACUUM (ANALYZE)")
    return shortages
