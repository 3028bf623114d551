"""What surrounds the schema: server, role, host, encryption, group roles, indexes, sessions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, Connection, Row, text

from migrations import postgres, snapshot
from migrations.deploy import preflight
from migrations.postgres import is_pooled
from schema.live import platform, read
from schema.roles import APPLICATION, BETTER_AUTH
from schema.text import pluralize

NEWEST = 18
"""The newest tested major version."""

_ROLE = """
SELECT
  r.rolname AS name,
  concat_ws(', ',
    CASE WHEN r.rolsuper THEN 'SUPERUSER' END,
    CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
    CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END,
    CASE WHEN r.oid = d.datdba THEN 'owner of the database' END
  ) AS attributes,
  r.rolsuper AS superuser,
  r.oid = d.datdba AS owns,
  has_schema_privilege(to_regnamespace('public'), 'USAGE') AS sees,
  pg_has_role('pg_read_all_stats', 'USAGE') AS sees_sessions,
  pg_encoding_to_char(d.encoding) AS encoding
FROM pg_roles AS r, pg_database AS d
WHERE r.rolname = current_user AND d.datname = current_database()
"""

# Attributes and memberships for which a revision rejects a group role; the right to grant the role.
_GROUP_ROLES = """
SELECT
  r.rolname AS name,
  concat_ws(' ',
    CASE WHEN r.rolsuper THEN 'SUPERUSER' END,
    CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END,
    CASE WHEN r.rolcanlogin THEN 'LOGIN' END,
    CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
    CASE WHEN r.rolcreatedb THEN 'CREATEDB' END,
    CASE WHEN r.rolreplication THEN 'REPLICATION' END
  ) AS attributes,
  ARRAY(
    SELECT quote_ident(pg_get_userbyid(m.roleid)) FROM pg_auth_members AS m
    WHERE m.member = r.oid ORDER BY 1
  ) AS memberships,
  pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION') AS grantable
FROM pg_roles AS r
WHERE r.rolname = ANY (:names)
ORDER BY 1
"""

_SCHEMAS = """
SELECT nspname FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1
"""

_EXTENSIONS = "SELECT format('%s %s', extname, extversion) FROM pg_extension ORDER BY 1"


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    found: str
    fix: Sequence[str] = ()
    """One sentence per problem that a deploy would fail at, with what to do."""
    notes: Sequence[str] = ()
    """Warnings; they do not block a deploy."""

    @property
    def ready(self) -> bool:
        """Whether there is nothing to fix."""
        return not self.fix


def examine(
    connection: Connection, target: URL, server_problems: Sequence[str]
) -> tuple[Row[Any] | None, list[Check]]:
    """Run the checks; return None for the role if the schema cannot be read by it or at all."""
    role = connection.execute(text(_ROLE)).one()
    shown: str = connection.exec_driver_sql("SHOW server_version").scalar_one().split()[0]
    server = _server_and_role(shown, role, server_problems)
    checks = [server, _host(target), _encryption(connection)]
    if read.major(shown) < postgres.OLDEST_VERSION or role.encoding != "UTF8":
        return None, checks  # query.sql supports neither
    return role, [
        *checks,
        _group_roles(connection, owns=role.owns),
        _platform(connection, sees=role.sees),
        _indexes(connection),
        _sessions(connection, everybody=role.sees_sessions),
    ]


def _host(target: URL) -> Check:
    if not is_pooled(target):
        neon = (target.host or "").endswith(".neon.tech")
        return Check("host", "Neon's direct host" if neon else "not Neon's pooled host")
    sentence = (
        "A deploy needs the direct host, because a pooler keeps no session locks and settings;"
        " remove -pooler from the host's name."
    )
    return Check("host", "Neon's pooled host", [sentence])


def _encryption(connection: Connection) -> Check:
    """Ask the driver, not the server: Neon's proxy ends TLS, so the server does not see it."""
    driver: Any = connection.connection.driver_connection
    mode = driver.info.get_parameters().get("sslmode", "prefer")
    return encryption(driver.info.host, mode, encrypted=driver.pgconn.ssl_in_use)


def encryption(host: str, mode: str, *, encrypted: bool) -> Check:
    """Check a connection's encryption; `mode` is libpq's `sslmode`."""
    if not host or host.startswith("/") or host in {"localhost", "127.0.0.1", "::1"}:
        return Check("encryption", "not needed: the server is on this machine")
    found = f"{'encrypted' if encrypted else 'not encrypted'}, sslmode={mode}"
    better = "sslmode=verify-full&sslrootcert=system"
    if not encrypted or mode in {"disable", "allow", "prefer"}:
        sentence = (
            "The connection may be unencrypted, and others could read the traffic; end the URL"
            f" with ?sslmode=require, or better with ?{better}."
        )
        return Check("encryption", found, [sentence])
    if mode != "verify-full":
        note = f"The server's identity is not verified; {better} verifies it."
        return Check("encryption", found, notes=[note])
    return Check("encryption", found)


def _server_and_role(shown: str, role: Row[Any], server_problems: Sequence[str]) -> Check:
    notes = []
    if read.major(shown) > NEWEST:
        notes.append(
            f"PostgreSQL {read.major(shown)} is newer than the newest tested version, {NEWEST}."
        )
    if role.superuser:
        notes.append("The role is a superuser: PostgreSQL will not stop a mistaken statement.")
    found = (
        f"PostgreSQL {shown}, {role.encoding}; {role.name}: {role.attributes or 'no attributes'}"
    )
    return Check("server and role", found, server_problems, notes)


def _group_roles(connection: Connection, *, owns: bool) -> Check:
    names = [APPLICATION, BETTER_AUTH]
    fix, notes = [], []
    rows = connection.execute(text(_GROUP_ROLES), {"names": names}).all()
    for row in rows:
        if row.attributes:
            without = " ".join(f"NO{word}" for word in row.attributes.split())
            fix.append(
                f"The role {row.name} has {row.attributes.replace(' ', ', ')}, so revisions reject"
                f" it; run ALTER ROLE {row.name} {without}."
            )
        if row.memberships:
            groups = ", ".join(row.memberships)
            fix.append(
                f"The role {row.name} is a member of {groups}, so revisions reject it; run"
                f" REVOKE {groups} FROM {row.name}."
            )
        if owns and not row.grantable:
            notes.append(
                f"Another role created {row.name}, and this role may not grant it to logins; have"
                f" that role run GRANT {row.name} TO … WITH ADMIN OPTION."
            )
    existing = [row.name for row in rows]
    missing = ", ".join(name for name in names if name not in existing)
    found = [", ".join(existing)] if existing else []
    found += [f"made by the first deploy: {missing}"] if missing else []
    return Check("group roles", "; ".join(found), fix, notes)


def _platform(connection: Connection, *, sees: bool) -> Check:
    schemas = connection.execute(text(_SCHEMAS)).scalars().all()
    facts = snapshot.read(connection) if sees else ()
    theirs = platform.schemas_left_out(connection, facts) if sees else []
    ours = [name for name in schemas if name not in theirs]
    extensions = connection.execute(text(_EXTENSIONS)).scalars().all()
    found = f"{', '.join(ours)}; extensions {', '.join(extensions)}"
    if theirs:
        found += f"; the platform's, not compared: {', '.join(theirs)}"
    return Check("schemas", found)


def _indexes(connection: Connection) -> Check:
    invalid = preflight.invalid_indexes(connection, being_built=False)
    if not invalid:
        return Check("indexes", "none is invalid")
    note = (
        "A deploy rebuilds those that schema.txt has, and drops others only where a revision builds"
        " them anew."
    )
    return Check("indexes", f"invalid: {', '.join(invalid)}", notes=[note])


def _sessions(connection: Connection, *, everybody: bool) -> Check:
    """Find sessions that a deploy may wait for; a deploy only warns of them."""
    notes = list(preflight.blockers(connection))
    whose = "" if everybody else " among this role's sessions (pg_monitor shows the others)"
    found = f"{pluralize(len(notes), 'thing')} to wait for" if notes else "nothing to wait for"
    return Check("sessions", found + whose, notes=notes)
