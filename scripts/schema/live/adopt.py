"""`schema adopt`: stamp a database that has the tables but no revision.

Every revision is built on an embedded server. If the schema of one equals the database's, that
revision is stamped: Alembic's table is made, with the privileges that the history gives it.
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

DEPLOY_TIMEOUT = 60
"""Seconds to wait for a running deploy."""

REMEDY = (
    "Nothing was changed. Lines with - are missing. Lines with + are only in the database, and may"
    " hold rows: find out whose they are before you change anything. When the schema equals"
    " {revision}, run this again."
)

# Alembic's table belongs in the schema of the revisions' tables.
_SETTINGS = "SET LOCAL search_path = public; SET LOCAL lock_timeout = '2s'"

# Alembic's table must belong to the database's owner, even if a superuser or another role stamps.
_NEW_OWNER = """
SELECT quote_ident(pg_get_userbyid(d.datdba))
FROM pg_database AS d, pg_class AS c
WHERE d.datname = current_database() AND c.oid = 'public.alembic_version'::regclass
  AND c.relowner <> d.datdba
"""

# Neon grants privileges on every table to neon_superuser.
_GRANTEES = """
SELECT DISTINCT coalesce(quote_ident(r.rolname), 'PUBLIC')
FROM pg_class AS c
CROSS JOIN aclexplode(c.relacl) AS g
LEFT JOIN pg_roles AS r ON r.oid = g.grantee
WHERE c.oid = 'public.alembic_version'::regclass AND g.grantee <> c.relowner
  AND r.rolname IS DISTINCT FROM 'neon_superuser'
"""

_PRIVILEGES = re.compile(r"[A-Z]+(, [A-Z]+)*")
"""How a snapshot writes privileges that the owner granted without the grant option."""


@dataclass(frozen=True)
class Match:
    """The revision whose schema equals the database's, or the nearest one."""

    server: str
    compared_on: str
    """The version of the embedded server."""
    revision: str
    head: str
    behind: int
    """Number of revisions from `revision` to the head."""
    unverified: Sequence[str]
    """Revisions up to this one that change no schema object, so they cannot be verified."""
    difference_count: int
    """Number of facts that only one side has."""
    difference: str
    """Facts of the history ('-') and of the database ('+')."""


def read_database(target: URL) -> Live:
    """Read the schema of the database to adopt, in read-only transactions.

    Raises:
        CannotRunError: it cannot be adopted, or not with this role or host.

    """
    if is_pooled(target):
        raise CannotRunError(
            "A pooled host cannot hold the deploy lock"
            f" ({describe_url(target)}); use the direct host, whose name has no -pooler."
        )

    def read_adoptable(connection: Connection) -> Live:
        live = read.read_live(connection)
        if not live.recorded.revisions:
            _require_adoptable(connection, live.recorded, live.facts)
        return live

    return read.read_twice(target, read_adoptable)


def match(live: Live, history: Mapping[str, snapshot.Snapshot], server: Server) -> Match:
    """Find the revision whose schema equals the database's, or the nearest one.

    Raises:
        CannotRunError: the database records a revision already.

    """
    if live.recorded.revisions:
        raise CannotRunError(_describe_recorded(live, history))
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
        unverified=history_schemas.without_schema_change(history, up_to),
        difference_count=history_schemas.distance(expected, facts),
        difference=snapshot.difference(expected, facts),
    )


def stamp(
    target: URL,
    scripts: ScriptDirectory,
    revision: str,
    expected: snapshot.Snapshot,
    log: Callable[[str], None],
) -> None:
    """Record the revision in one transaction, under the deploy lock.

    `expected` is the schema at that revision with Alembic's table. The database must equal it after
    the stamp.

    Raises:
        CannotRunError: the schema has changed since it was read, or the role may not stamp it.
        CommandError: a running deploy did not end in time.

    """
    try:
        with (
            connect(read.in_utf8(target)) as connection,
            hold_deploy_lock(connection, DEPLOY_TIMEOUT, log),
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
            _change_owner(connection)
            _set_privileges(connection, expected)
            found = snapshot.read(connection, version_table=True)
            if found != expected:
                first = snapshot.difference(expected, found).splitlines()
                raise CannotRunError(
                    f"Alembic's table would differ from the history at {revision}"
                    f" ({'; '.join(' '.join(line.split()) for line in first)}), so nothing was"
                    " stamped; if the table is empty, drop it and run this again."
                )
            verification.store_schema(connection, verification.read_schema(connection, revision))
    except (DBAPIError, psycopg.Error) as error:
        raise CannotRunError(
            f"The revision could not be stamped: {first_error_line(error)}"
            f" ({describe_url(target)}); fix that and run this again."
        ) from error


def _describe_recorded(live: Live, history: Mapping[str, snapshot.Snapshot]) -> str:
    """Describe the recorded revision, and what to do if the schema is another revision's."""
    found = comparison.compare(live, history)
    if found.equals is not None and found.record_differs:
        return f"{comparison.sentence(found)} ({live.where}); {comparison.advice(found)}."
    return _already_adopted(live.recorded, live.where)


def _already_adopted(recorded: Recorded, where: str) -> str:
    return (
        f"The database is already at revision {', '.join(recorded.revisions)} ({where}); deploy it"
        " (alembic upgrade head), or compare it (schema drift)."
    )


def _require_adoptable(
    connection: Connection, recorded: Recorded, facts: snapshot.Snapshot
) -> None:
    """Raise if the database has a revision or no tables, or if the role may not stamp it."""
    where = describe_url(connection.engine.url)
    if recorded.unreadable is not None:
        raise CannotRunError(
            f"Alembic's table exists, but cannot be read: {recorded.unreadable} ({where});"
            " connect as its owner."
        )
    if recorded.revisions:
        raise CannotRunError(_already_adopted(recorded, where))
    may_create = "SELECT has_schema_privilege(to_regnamespace('public'), 'CREATE')"
    if not connection.exec_driver_sql(may_create).scalar_one():
        raise CannotRunError(
            f"The role may not create Alembic's table in schema public ({where}); connect as the"
            " owner."
        )
    schema = read.without_version_table(facts)
    if not any(fact.object.startswith("table ") for fact in schema):
        raise CannotRunError(
            f"The database has no tables ({where}), so there is nothing to adopt; deploy it"
            " (alembic upgrade head)."
        )


def _change_owner(connection: Connection) -> None:
    owner = connection.exec_driver_sql(_NEW_OWNER).scalar_one_or_none()
    if owner is not None:
        connection.exec_driver_sql(f"ALTER TABLE public.alembic_version OWNER TO {owner}")


def _set_privileges(connection: Connection, expected: snapshot.Snapshot) -> None:
    """Give Alembic's table exactly the privileges that it has in `expected`."""
    for grantee in connection.exec_driver_sql(_GRANTEES).scalars().all():
        connection.exec_driver_sql(f"REVOKE ALL ON public.alembic_version FROM {grantee}")
    for heading, part, privileges in expected:
        granted = heading == read.VERSION_TABLE and part.startswith("grant to ")
        if granted and _PRIVILEGES.fullmatch(privileges):
            grantee = part.removeprefix("grant to ")
            connection.exec_driver_sql(f"GRANT {privileges} ON public.alembic_version TO {grantee}")
