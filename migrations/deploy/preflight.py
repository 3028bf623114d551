"""What keeps a deploy from a database, and what it should be warned of, before anything is done."""

from collections.abc import Iterator

from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

from migrations.deploy import verification
from migrations.deploy.activity import BackendActivity
from migrations.postgres import OLDEST_VERSION

LONG = 10
"""Seconds from which on a transaction is one that a deploy may have to wait for."""

_SERVER = text(
    """
    SELECT current_setting('server_version_num')::int / 10000, pg_is_in_recovery(),
           current_setting('transaction_read_only')::bool, current_database(), current_user,
           pg_get_userbyid(datdba), rolsuper OR rolcreaterole, pg_encoding_to_char(encoding)
    FROM pg_database, pg_roles
    WHERE datname = current_database() AND rolname = current_user
    """
)

_STRANGERS = text(
    """
    SELECT format('%s belongs to %s', c.oid::regclass, pg_get_userbyid(c.relowner))
    FROM pg_class AS c
    WHERE c.relnamespace = to_regnamespace('public') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      AND NOT pg_has_role(c.relowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e')
    ORDER BY c.relname LIMIT 1
    """
)

_TABLES = text(
    """
    SELECT c.oid::regclass::text
    FROM pg_class AS c
    WHERE c.relnamespace = to_regnamespace('public') AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND c.relname <> 'alembic_version'
      AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e')
    ORDER BY c.relname
    """
)

# Whoever builds an index holds such a lock on its table; the views that tell more show other roles'
# sessions only to some. An index on a partitioned table is invalid until every partition has its
# own: that is no remnant.
_INVALID = text(
    """
    SELECT i.indexrelid::regclass::text,
           EXISTS (SELECT FROM pg_locks AS l
                   WHERE l.relation = i.indrelid AND l.pid <> pg_backend_pid() AND l.granted
                     AND l.database = (SELECT oid FROM pg_database
                                       WHERE datname = current_database())
                     AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock'))
    FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indexrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE NOT i.indisvalid AND c.relkind = 'i' AND n.nspname = 'public'
    ORDER BY 1
    """
)

_BLIND = text(
    """
    SELECT NOT (rolsuper OR rolbypassrls)
           AND EXISTS (SELECT FROM pg_class WHERE relforcerowsecurity)
    FROM pg_roles WHERE rolname = current_user
    """
)

_LONG = text(
    """
    SELECT pid, usename, application_name, backend_type, state,
           extract(epoch FROM clock_timestamp() - xact_start)::float, query
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
      AND xact_start < clock_timestamp() - make_interval(secs => :seconds)
    ORDER BY xact_start
    """
).bindparams(seconds=LONG)

_PREPARED = text(
    """
    SELECT gid FROM pg_prepared_xacts
    WHERE database = current_database()
      AND prepared < clock_timestamp() - make_interval(secs => :seconds)
    """
).bindparams(seconds=LONG)


def check_server(connection: Connection) -> Iterator[str]:
    """Find fault with the server and the role, which keep any command from changing anything.

    A sentence each, the most fundamental first: what follows may be its consequence. Only reads.
    """
    row = connection.execute(_SERVER).one()
    version, standby, read_only, database, role, owner, may_make_roles, encoding = row
    if version < OLDEST_VERSION:
        yield (
            f"The server is PostgreSQL {version}; {OLDEST_VERSION} is the oldest that is supported:"
            " upgrade it first."
        )
    if encoding != "UTF8":
        yield (
            f"The database {database} is in {encoding}, and the schema is for UTF8; make another:"
            " CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0."
        )
    if standby:
        yield "The server is a read-only standby (in recovery); name its primary in DATABASE_URL."
    elif read_only:
        yield (
            f"Transactions of {role} are read-only (default_transaction_read_only); find out who"
            " set it, and why, before you lift it."
        )
    if role != owner:
        yield (
            f"The role {role} does not own the database {database}, and what it made would not"
            f" belong to the owner; connect as {owner}."
        )
    elif (stranger := connection.scalar(_STRANGERS)) is not None:
        yield (
            f"The role {role} may not change everything: {stranger}; have it handed over with"
            f" ALTER TABLE … OWNER TO {role}."
        )
    if not may_make_roles and (missing := _missing_roles(connection)):
        yield (
            f"The role {role} may not make the group roles that are missing ({', '.join(missing)});"
            " give it CREATEROLE, or make them: CREATE ROLE … NOLOGIN."
        )


def check_revision(connection: Connection, scripts: ScriptDirectory) -> Iterator[str]:
    """Find fault with the revision that the database says it is at, in a sentence; only reads."""
    found = recorded_revisions(connection)
    if len(found) > 1:
        yield (
            f"The database names {len(found)} revisions ({', '.join(sorted(found))}), but a history"
            " of one line leads to one; find out which one holds, and leave only its row in"
            " alembic_version."
        )
        return
    known = {revision.revision for revision in scripts.walk_revisions()}
    if found and found[0] not in known:
        yield (
            f"The database is at revision {found[0]}, which is not in migrations/versions: deploy"
            " the release that has it, or a later one."
        )
    elif not found and (tables := list(connection.scalars(_TABLES))):
        some = ", ".join(tables[:3]) + (f" and {len(tables) - 3} more" if len(tables) > 3 else "")
        yield (
            f"The database has tables ({some}) but no revision; `schema adopt --database-url …`"
            " finds the revision that it equals, and stamps it."
        )


def require_single_head(scripts: ScriptDirectory) -> str:
    """Name the one head of the history.

    Raises:
        CommandError: the files cannot be read, or there is not exactly one head.

    """
    try:
        heads = scripts.get_heads()
    except Exception as error:
        what = " ".join(str(error).split()).rstrip(".")
        raise CommandError(
            f"The revision files cannot be read ({type(error).__name__}: {what}); fix the one"
            " that is named, or bring it back."
        ) from error
    if not heads:
        raise CommandError(
            "There is no revision in migrations/versions: ship the folder with the deploy."
        )
    if len(heads) != 1:
        raise CommandError(
            f"The history has {len(heads)} heads ({', '.join(sorted(heads))}), and must have one;"
            " set the down_revision of the newer one to the older one, and deploy that."
        )
    return heads[0]


def recorded_revisions(connection: Connection) -> list[str]:
    """The revisions that the database says it is at: none, one, or by mistake several."""
    if connection.scalar(text("SELECT to_regclass('public.alembic_version')")) is None:
        return []
    return list(connection.scalars(text("SELECT version_num FROM public.alembic_version")))


def invalid_indexes(connection: Connection, *, being_built: bool) -> list[str]:
    """The indexes that a concurrent build left invalid, or those on tables where one goes on."""
    rows = connection.execute(_INVALID).all()
    return [index for index, building in rows if building == being_built]


def warnings(connection: Connection) -> Iterator[str]:
    """Say what may go wrong in a deploy, or hold it up; only reads."""
    if connection.scalar(_BLIND):
        yield (
            "This role sees no rows where row security is forced: a revision that changes rows"
            " would find none; give it BYPASSRLS, or have the revision SET row_security = off."
        )
    yield from waits(connection)


def waits(connection: Connection) -> Iterator[str]:
    """Say what a deploy may have to wait for; only reads."""
    for index in invalid_indexes(connection, being_built=True):
        yield f"The index {index} is not valid yet: somebody is building an index on its table."
    for row in connection.execute(_LONG):
        yield f"An old transaction may have to be waited for: {BackendActivity(*row)}"
    for name in connection.scalars(_PREPARED):
        yield (
            f"The prepared transaction {name} keeps its locks until somebody ends it:"
            " COMMIT PREPARED, or ROLLBACK PREPARED."
        )


def _missing_roles(connection: Connection) -> list[str]:
    """Name the roles of the committed schema that the server does not have."""
    lines = verification.committed_schema().splitlines()
    wanted = [line.removeprefix("role ") for line in lines if line.startswith("role ")]
    known = set(connection.scalars(text("SELECT quote_ident(rolname) FROM pg_roles")))
    return [role for role in wanted if role not in known]
