"""`schema adopt`: tell a database that has the tables, but no revision, which revision it is at.

Every revision is built on an embedded server. Where one of them equals the database, it is stamped:
Alembic's table is made as the history at that revision has it, its privileges too.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError

from migrations import snapshot
from migrations.deploy import verification
from migrations.deploy.advisory_lock import hold_deploy_lock
from migrations.postgres import describe_url, first_error_line, is_pooled
from schema.errors import CannotRunError
from schema.live import comparison, history_schemas, read
from schema.live.history_schemas import BASE
from schema.live.read import Live, Recorded
from schema.postgres.connection import connect
from schema.postgres.scratch import Server

PATIENCE = 60
"""Seconds to wait for a deploy that runs at the moment."""

REMEDY = (
    "Nothing was changed. Bring the database to {revision} by hand (what stands after - is missing,"
    " what stands after + is too much), and run this again."
)

# Unqualified, Alembic's table goes where the revisions make theirs.
_SETTINGS = "SET LOCAL search_path = public; SET LOCAL lock_timeout = '2s'"

# Who stamps as a superuser or as a member of the owner must not keep the table from the owner.
_RIGHTFUL_OWNER = """
SELECT quote_ident(pg_get_userbyid(d.datdba))
FROM pg_database AS d, pg_class AS c
WHERE d.datname = current_database() AND c.oid = 'public.alembic_version'::regclass
  AND c.relowner <> d.datdba
"""

# neon_superuser's come with every table on Neon.
_GRANTEES = """
SELECT DISTINCT coalesce(quote_ident(r.rolname), 'PUBLIC')
FROM pg_class AS c
CROSS JOIN aclexplode(c.relacl) AS g
LEFT JOIN pg_roles AS r ON r.oid = g.grantee
WHERE c.oid = 'public.alembic_version'::regclass AND g.grantee <> c.relowner
  AND r.rolname IS DISTINCT FROM 'neon_superuser'
"""

_PRIVILEGES = re.compile(r"[A-Z]+(, [A-Z]+)*")
"""How a snapshot writes what was granted by the owner and cannot be handed on."""


@dataclass(frozen=True)
class Match:
    """The revision whose schema the database has, or the one that comes nearest."""

    server: str
    compared_on: str
    """The version of the embedded server."""
    revision: str
    head: str
    behind: int
    """How many revisions the head is further."""
    unverified: Sequence[str]
    """Revisions up to this one that no schema shows: they change rows, or nothing."""
    difference_count: int
    """How many facts only one side has; none when they are equal."""
    difference: str
    """What the history builds ('-') and the database has ('+')."""


def look(target: URL) -> Live:
    """Read the schema of a database that is to be adopted, in read-only transactions.

    Raises:
        CannotRunError: it cannot be adopted, or not through this role or host.

    """
    if is_pooled(target):
        raise CannotRunError(
            "A pooled host cannot hold the lock that keeps deploys out"
            f" ({describe_url(target)}); name the direct host, the one without -pooler."
        )

    def adoptable(connection: Connection) -> Live:
        live = read.look(connection)
        if not live.recorded.revisions:
            _require_adoptable(connection, live.recorded, live.facts)
        return live

    return read.read_twice(target, adoptable)


def match(live: Live, history: Mapping[str, snapshot.Snapshot], server: Server) -> Match:
    """Find the revision whose schema the database has, or the nearest, in the built history.

    Raises:
        CannotRunError: the database records a revision; the sentence says whether it is right.

    """
    if live.recorded.revisions:
        raise CannotRunError(_already(live, history))
    schemas = {
        revision: read.without_version_table(facts)
        for revision, facts in history.items()
        if revision != BASE
    }
    facts = read.without_version_table(live.facts)
    known = list(schemas)
    revision = history_schemas.nearest(schemas, facts)
    expected = schemas[revision]
    up_to = known[: known.index(revision) + 1]
    return Match(
        server=live.server,
        compared_on=server.version,
        revision=revision,
        head=known[-1],
        behind=len(known) - len(up_to),
        unverified=history_schemas.rows_only(history, up_to),
        difference_count=history_schemas.distance(expected, facts),
        difference=snapshot.difference(expected, facts),
    )


def stamp(
    target: URL,
    scripts: ScriptDirectory,
    revision: str,
    expected: snapshot.Snapshot,
    tell: Callable[[str], None],
) -> None:
    """Record the revision in the database, in one transaction, with deploys kept out.

    `expected` is the whole schema at that revision, Alembic's table included: the database must
    equal it in the end.

    Raises:
        CannotRunError: it was changed since it was looked at, or the role may not do it.
        CommandError: a deploy runs, and does not end in time.

    """
    try:
        with (
            connect(read.in_utf8(target)) as connection,
            hold_deploy_lock(connection, PATIENCE, tell),
            connection.begin(),
        ):
            connection.exec_driver_sql(_SETTINGS)
            recorded, schema = read.recorded(connection), snapshot.read(connection)
            _require_adoptable(connection, recorded, schema)
            if schema != read.without_version_table(expected):
                raise CannotRunError(
                    f"The schema was changed while it was compared ({describe_url(target)}); run"
                    " this again."
                )
            MigrationContext.configure(connection).stamp(scripts, revision)
            _hand_over(connection)
            _grant(connection, expected)
            found = snapshot.read(connection, version_table=True)
            if found != expected:
                first = snapshot.difference(expected, found).splitlines()
                raise CannotRunError(
                    f"Alembic's table would not be what the history at {revision} makes it"
                    f" ({'; '.join(' '.join(line.split()) for line in first)}), and nothing was"
                    " stamped; drop it, when it is empty, and run this again."
                )
            verification.store_schema(connection, verification.read_schema(connection, revision))
    except (DBAPIError, psycopg.Error) as error:
        raise CannotRunError(
            f"The revision could not be stamped: {first_error_line(error)}"
            f" ({describe_url(target)}); fix that, and"
            " run this again."
        ) from error


def _already(live: Live, history: Mapping[str, snapshot.Snapshot]) -> str:
    """Say which revision the database records, and what to do when the schema is another one's."""
    found = comparison.compare(live, history)
    if found.equals is not None and found.misplaced:
        return f"{comparison.statement(found)} ({live.where}); {comparison.advice(found)}."
    return _recorded(live.recorded, live.where)


def _recorded(recorded: Recorded, where: str) -> str:
    return (
        f"The database already is at revision {', '.join(recorded.revisions)} ({where}); deploy it"
        " (alembic upgrade head), or compare it (schema drift)."
    )


def _require_adoptable(
    connection: Connection, recorded: Recorded, facts: snapshot.Snapshot
) -> None:
    """Refuse a database that has a revision or no tables, and a role that may not stamp it."""
    where = describe_url(connection.engine.url)
    if recorded.unreadable is not None:
        raise CannotRunError(
            f"Alembic's table is there, but cannot be read: {recorded.unreadable} ({where});"
            " connect as its owner."
        )
    if recorded.revisions:
        raise CannotRunError(_recorded(recorded, where))
    may = "SELECT has_schema_privilege(to_regnamespace('public'), 'CREATE')"
    if not connection.exec_driver_sql(may).scalar_one():
        raise CannotRunError(
            f"The role may not make Alembic's table in schema public ({where}); connect as the"
            " owner."
        )
    schema = read.without_version_table(facts)
    if not any(fact.object.startswith("table ") for fact in schema):
        raise CannotRunError(
            f"The database has no tables ({where}): there is nothing to adopt; deploy it (alembic"
            " upgrade head)."
        )


def _hand_over(connection: Connection) -> None:
    """Give Alembic's table to the owner of the database, whom the other tables belong to."""
    owner = connection.exec_driver_sql(_RIGHTFUL_OWNER).scalar_one_or_none()
    if owner is not None:
        connection.exec_driver_sql(f"ALTER TABLE public.alembic_version OWNER TO {owner}")


def _grant(connection: Connection, expected: snapshot.Snapshot) -> None:
    """Give Alembic's table the privileges that it has in the reference, and no others."""
    for grantee in connection.exec_driver_sql(_GRANTEES).scalars().all():
        connection.exec_driver_sql(f"REVOKE ALL ON public.alembic_version FROM {grantee}")
    for heading, part, privileges in expected:
        granted = heading == read.VERSION_TABLE and part.startswith("grant to ")
        if granted and _PRIVILEGES.fullmatch(privileges):
            grantee = part.removeprefix("grant to ")
            connection.exec_driver_sql(f"GRANT {privileges} ON public.alembic_version TO {grantee}")
