"""Find what blocks a deploy and what to warn of, before anything changes."""

from collections.abc import Iterator, Sequence

from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

from migrations.deploy import verification
from migrations.deploy.activity import BackendActivity
from migrations.postgres import OLDEST_VERSION
from migrations.snapshot import fingerprints

LONG_SECONDS = 10
"""The age at which an open transaction is reported."""

_SERVER = text(
    """
    SELECT current_setting('server_version_num')::int / 10000, pg_is_in_recovery(),
           current_setting('transaction_read_only')::bool, current_database(), current_user,
           pg_get_userbyid(datdba), rolsuper OR rolcreaterole, pg_encoding_to_char(encoding),
           coalesce(has_schema_privilege(to_regnamespace('public'), 'CREATE'), false)
           AND has_schema_privilege(to_regnamespace('public'), 'USAGE')
    FROM pg_database, pg_roles
    WHERE datname = current_database() AND rolname = current_user
    """
)

_OWNED_BY_OTHERS = text(
    """
    SELECT c.oid::regclass::text, quote_ident(pg_get_userbyid(c.relowner))
    FROM pg_class AS c
    WHERE c.relnamespace = to_regnamespace('public') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      AND NOT pg_has_role(c.relowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e')
    ORDER BY c.relname
    """
)

_TABLES = text(
    """
    SELECT c.oid::regclass::text
    FROM pg_class AS c
    WHERE c.relnamespace = to_regnamespace('public') AND c.relkind IN ('r', 'p')
      AND c.relname <> 'alembic_version'
      AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e')
    ORDER BY c.relname
    """
)

# A session that builds an index holds one of these locks on its table; other roles' progress is not
# always visible. Autovacuum, which has no user, holds one too.
BEING_BUILT = """EXISTS (
    SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.relation = i.indrelid AND l.pid <> pg_backend_pid() AND l.granted
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock') AND a.usesysid IS NOT NULL)
"""
"""Condition on an index `i` of pg_index."""

# An index on a partitioned table is invalid until every partition has one: it is not left over from
# a build.
_INVALID = text(
    f"""
    SELECT i.indexrelid::regclass::text, {BEING_BUILT}
    FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indexrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE NOT i.indisvalid AND c.relkind = 'i' AND n.nspname = 'public'
    ORDER BY 1
    """
)

# The owner of a table with forced row security obeys its policies. One without pages has no rows.
_HIDDEN_FROM_THE_OWNER = text(
    """
    SELECT c.oid::regclass::text FROM pg_class AS c
    WHERE c.relkind IN ('r', 'p') AND c.relforcerowsecurity AND row_security_active(c.oid)
      AND coalesce((SELECT sum(pg_relation_size(relid)) FROM pg_partition_tree(c.oid)),
                   pg_relation_size(c.oid)) > 0
    ORDER BY 1
    """
)

_LONG_TRANSACTIONS = text(
    """
    SELECT pid, usename, application_name, backend_type, state,
           extract(epoch FROM clock_timestamp() - xact_start)::float
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
      AND xact_start < clock_timestamp() - make_interval(secs => :seconds)
    ORDER BY xact_start
    """
)

_DEVELOPMENT = text("SELECT current_setting('app.development', true) = current_database()")
"""Set by `schema serve`, on the server's command line."""

_PREPARED = text(
    """
    SELECT gid FROM pg_prepared_xacts
    WHERE database = current_database()
      AND prepared < clock_timestamp() - make_interval(secs => :seconds)
    """
)


def check_server(connection: Connection) -> Iterator[str]:
    """Yield one message per server or role problem that blocks a deploy; only reads.

    The first message is the most basic problem: it may cause the others.
    """
    row = connection.execute(_SERVER).one()
    version, standby, read_only, database, role, owner, may_make_roles, encoding, may_create = row
    if version < OLDEST_VERSION:
        yield (
            f"The server is PostgreSQL {version}, and {OLDEST_VERSION} is the oldest supported"
            " version; upgrade the server first."
        )
    if encoding != "UTF8":
        yield (
            f"The encoding of the database {database} is {encoding}, but the schema needs UTF8;"
            " create another: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0."
        )
    if standby:
        yield "The server is a read-only standby (in recovery); name its primary in DATABASE_URL."
    elif read_only:
        yield (
            f"Transactions of {role} are read-only (default_transaction_read_only); find out why"
            " before you change that."
        )
    if role != owner:
        yield (
            f"The role {role} does not own the database {database}, and its new tables would not"
            f" belong to the owner; connect as {owner}."
        )
        return  # what it may not do is no defect, and must not be granted to it
    if other := _owned_by_another(connection):
        yield (
            f"The role {role} cannot alter {other[0]}, which belongs to {other[1]}; change its"
            f" owner: ALTER TABLE {other[0]} OWNER TO {role}."
        )
    if not may_create:
        yield (
            f"The role {role} may not create objects in the schema public; give it the schema:"
            f" ALTER SCHEMA public OWNER TO {role}, or CREATE SCHEMA public if there is none."
        )
    if not may_make_roles and (missing := _missing_roles(connection)):
        yield (
            f"The role {role} may not create the missing group roles ({', '.join(missing)});"
            " give it CREATEROLE, or create them: CREATE ROLE … NOLOGIN."
        )


def check_revision(connection: Connection, scripts: ScriptDirectory) -> Iterator[str]:
    """Yield a message if the recorded revision blocks a deploy; only reads."""
    found = recorded_revisions(connection)
    if several := list(check_single_revision(found)):
        yield from several
        return
    known = {revision.revision for revision in scripts.walk_revisions()}
    if found and found[0] not in known and is_development(connection):
        yield (
            f"This is a development database at revision {found[0]} of another branch; build it"
            " anew from this one: schema reset."
        )
    elif found and found[0] not in known:
        yield (
            f"The database is at revision {found[0]}, which is not in migrations/versions; deploy"
            " the release that contains it, or a later one."
        )
    elif not found and (tables := _own_tables(connection)):
        yield (
            f"The database has the history's tables ({verification.named(tables)}) but no revision;"
            " `schema adopt` finds the matching revision and stamps it."
        )


def check_single_revision(found: Sequence[str]) -> Iterator[str]:
    """Yield a message if several revisions are recorded, which only `stamp --purge` may replace."""
    if len(found) > 1:
        yield (
            f"The database records {len(found)} revisions ({', '.join(sorted(found))}), but a"
            " linear history has one; find out which one is right, and keep only its row in"
            " alembic_version."
        )


def check_row_security(connection: Connection, *, pending: bool) -> Iterator[str]:
    """Yield a message if the role is blind to rows that pending revisions may change; only reads.

    An UPDATE by such a role changes no row, and a new foreign key ignores rows that violate it. The
    first deploy needs no BYPASSRLS, also when it is run again.
    """
    hidden = list(connection.scalars(_HIDDEN_FROM_THE_OWNER)) if pending else []
    if hidden:
        role = connection.scalar(text("SELECT quote_ident(current_user)"))
        yield (
            f"The role {role} cannot see the rows of {verification.named(hidden)}, because their"
            " row security is forced and it has no BYPASSRLS: a revision would change no row of"
            f" them, and check none. Run ALTER ROLE {role} BYPASSRLS, or deploy as a role that"
            " has it."
        )


def is_development(connection: Connection) -> bool:
    """Whether this is the database of a checkout's development server."""
    return bool(connection.scalar(_DEVELOPMENT))


def require_single_head(scripts: ScriptDirectory) -> str:
    """Return the head of the history.

    Raises:
        CommandError: the files cannot be read, there is not exactly one head, or a revision merges
            branches.

    """
    try:
        heads = scripts.get_heads()
    except Exception as error:
        what = " ".join(str(error).split()).rstrip(".")
        raise CommandError(
            f"The revision files cannot be read ({type(error).__name__}: {what}); fix or restore"
            " the named file."
        ) from error
    if not heads:
        raise CommandError(
            "There is no revision in migrations/versions: ship the folder with the deploy."
        )
    if len(heads) != 1:
        raise CommandError(
            f"The history has {len(heads)} heads ({', '.join(sorted(heads))}), but must have one;"
            " set the down_revision of the newer one to the older one, and deploy that."
        )
    merges = [one.revision for one in scripts.walk_revisions() if one.is_merge_point]
    if merges:
        raise CommandError(
            f"The revision {merges[0]} merges branches, but a linear history has none: a database"
            " that has one branch could not be told from one that has both. Remove it, and set the"
            " down_revision of one branch's first revision to the other branch's last."
        )
    return heads[0]


def recorded_revisions(connection: Connection) -> list[str]:
    """The revisions in alembic_version: none, one, or several by mistake."""
    if connection.scalar(text("SELECT to_regclass('public.alembic_version')")) is None:
        return []
    return list(connection.scalars(text("SELECT version_num FROM public.alembic_version")))


def invalid_indexes(connection: Connection, *, being_built: bool) -> list[str]:
    """The invalid indexes: those on tables where an index build runs, or all others."""
    rows = connection.execute(_INVALID).all()
    return [index for index, building in rows if building == being_built]


def is_committed(index: str, committed: str) -> bool:
    """Whether the committed schema has an index of that name."""
    return f"\n    index {index}  " in committed


def warnings(connection: Connection) -> Iterator[str]:
    """Yield a message per problem that may break or delay a deploy; only reads."""
    for index in invalid_indexes(connection, being_built=False):
        if not is_committed(index, verification.committed_schema()):
            yield (
                f"The index {index} is invalid and not in schema.txt, so that the deploy leaves it"
                " alone unless a revision builds it; drop it with DROP INDEX CONCURRENTLY if it is"
                " a remnant."
            )
    yield from blockers(connection)


def blockers(connection: Connection) -> Iterator[str]:
    """Yield a message per session or transaction that a deploy may wait for; only reads."""
    for index in invalid_indexes(connection, being_built=True):
        yield f"The index {index} is not valid yet: another session builds an index on its table."
    limit = {"seconds": LONG_SECONDS}
    for row in connection.execute(_LONG_TRANSACTIONS, limit):
        yield f"The deploy may have to wait for an old transaction: {BackendActivity(*row)}"
    for name in connection.scalars(_PREPARED, limit):
        yield (
            f"The prepared transaction {name} keeps its locks until it is ended; run COMMIT"
            " PREPARED or ROLLBACK PREPARED."
        )


def _owned_by_another(connection: Connection) -> tuple[str, str] | None:
    """Return an object that a revision makes and another role owns, and that role."""
    known = {name.split(" ")[-1] for name in fingerprints.owned(verification.committed_history())}
    rows = connection.execute(_OWNED_BY_OTHERS)
    return next(((name, owner) for name, owner in rows if name in known), None)


def _own_tables(connection: Connection) -> list[str]:
    """Return the tables that a revision makes: the others do not stand in the way."""
    known = fingerprints.owned(verification.committed_history())
    return [name for name in connection.scalars(_TABLES) if f"table {name}" in known]


def _missing_roles(connection: Connection) -> list[str]:
    """Return the roles of the committed schema that the server does not have."""
    lines = verification.committed_schema().splitlines()
    wanted = [line.removeprefix("role ") for line in lines if line.startswith("role ")]
    known = set(connection.scalars(text("SELECT quote_ident(rolname) FROM pg_roles")))
    return [role for role in wanted if role not in known]
