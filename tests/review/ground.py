"""The corpus's schema with rows, in a database that each migration gets a clone of."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import URL

from schema.postgres.scratch import Server
from tests.review import access
from tests.review.labels import script, statements

BIG = 1000
"""Rows from which on the labels count work on a table."""
NAMESPACES = ["public", "archive"]

type Session = psycopg.Connection[tuple[Any, ...]]

_RELATIONS = """
SELECT c.oid, c.oid::regclass::text, c.relkind::text, coalesce(i.indrelid, d.refobjid)
FROM pg_class AS c
LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
LEFT JOIN pg_depend AS d
  ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
  AND c.relkind = 'S' AND d.deptype IN ('a', 'i')
WHERE c.relnamespace = ANY (%s::regnamespace[]) AND c.relkind <> 'c'
"""


@dataclass(frozen=True)
class Relation:
    """A relation that exists before the migration."""

    oid: int
    name: str
    kind: str
    """As in pg_class.relkind: r, p, v, m, i, I or S."""
    table: int | None
    """The table of an index or of an owned sequence."""


type Values = dict[int, tuple[str, int]]
"""The columns of a table by number: the name, and how many distinct values there are."""


@dataclass(frozen=True)
class Content:
    """What a table holds."""

    rows: int
    columns: Values


@dataclass(frozen=True)
class Ground:
    """What there is before a migration."""

    server: Server
    version: int
    full: URL
    """The template with rows."""
    bare: URL
    """The template without rows, for what depends on none."""
    relations: dict[int, Relation]
    contents: dict[int, Content]
    """Of the tables and materialised views."""
    access: access.Access

    def big(self, oid: int) -> bool:
        """Whether work on this relation counts."""
        return oid in self.contents and self.contents[oid].rows >= BIG


@contextmanager
def session(url: URL) -> Iterator[Session]:
    """Connect in autocommit mode: transactions are written out."""
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True, prepare_threshold=None) as opened:
        opened.execute("SET max_parallel_workers_per_gather = 0")
        opened.execute("SET max_parallel_maintenance_workers = 0")  # their reads count elsewhere
        yield opened


@contextmanager
def prepared(server: Server) -> Iterator[Ground]:
    """Make the two templates on that server."""
    _make_roles(server)
    base = statements(script("base.sql"))
    with server.database() as full:
        with session(full) as opened:
            for statement in base:
                opened.execute(statement.encode())
            opened.execute("VACUUM (ANALYZE)")
            broken = access.broken(opened)
        if broken:
            raise ValueError(f"application.sql fails before any migration: {broken}")
        with server.database(full) as bare:  # a clone: the relations' oids are the same
            yield _examine(server, full, bare)


def _examine(server: Server, full: URL, bare: URL) -> Ground:
    """Empty one of the templates, and read from the other what there is."""
    with session(full) as opened:
        found = {row[0]: Relation(*row) for row in opened.execute(_RELATIONS, [NAMESPACES])}
        contents = {oid: content(opened, oid) for oid, one in found.items() if one.kind in "rm"}
        granted = access.read(opened, sorted(found))
    with session(bare) as opened:
        tables = [one.name for one in found.values() if one.kind == "r"]
        opened.execute(f"TRUNCATE {', '.join(tables)}".encode())
    version = int(server.version.split(".")[0])
    return Ground(server, version, full, bare, found, contents, granted)


def content(opened: Session, oid: int) -> Content:
    """Count the rows of a table, and the distinct values of each of its columns."""
    columns = opened.execute(
        "SELECT attnum, attname::text, quote_ident(attname) FROM pg_attribute"
        " WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [oid],
    ).fetchall()
    counted = "".join(f", count(DISTINCT {quoted})" for _number, _name, quoted in columns)
    name = opened.execute("SELECT %s::regclass::text", [oid]).fetchall()[0][0]
    query = f"SELECT count(*){counted} FROM ONLY {name}"
    rows, *values = opened.execute(query.encode()).fetchall()[0]
    found = zip(columns, values, strict=True)
    return Content(rows, {number: (column, value) for (number, column, _), value in found})


def _make_roles(server: Server) -> None:
    """Make the roles of the corpus, which other processes may make at the same time."""
    with session(server.maintenance) as opened, opened.transaction():
        opened.execute("SELECT pg_advisory_xact_lock(hashtext('tests/review'))")
        for role in access.ROLES:
            if opened.execute("SELECT to_regrole(%s)", [role]).fetchall() == [(None,)]:
                opened.execute(f"CREATE ROLE {role}".encode())
                opened.execute(f"GRANT {role} TO CURRENT_USER WITH SET TRUE".encode())
