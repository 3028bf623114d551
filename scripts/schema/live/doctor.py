"""`schema doctor`: find what to fix in a database, a server or a URL before a deploy; only reads.

It runs the deploy's own preflight checks, and others that a deploy runs too late or never.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alembic.script import ScriptDirectory
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import URL, Connection, Row, text
from sqlalchemy.exc import DBAPIError

from migrations import postgres, snapshot
from migrations.deploy import preflight, verification
from migrations.postgres import first_error_line, is_pooled
from schema.live import comparison, history_schemas, read
from schema.live.read import Live
from schema.roles import APPLICATION, BETTER_AUTH
from schema.text import pluralize

NEWEST = 18
"""The newest tested major version."""

MAX_NAMED = 5
"""How many objects a message names."""

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
  r.rolsuper OR r.rolbypassrls AS bypasses,
  to_regnamespace('public') IS NOT NULL AS has_public,
  has_schema_privilege(to_regnamespace('public'), 'USAGE') AS sees,
  has_schema_privilege(to_regnamespace('public'), 'CREATE') AS creates,
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

_PUBLIC = """
SELECT format('%s on schema public', string_agg(g.privilege_type, ', ')), 'SCHEMA public'
FROM pg_namespace AS n, aclexplode(n.nspacl) AS g
WHERE n.nspname = 'public' AND g.grantee = 0 AND g.privilege_type <> 'USAGE'
HAVING count(*) > 0
UNION ALL
SELECT format('%s on %s', string_agg(g.privilege_type, ', ' ORDER BY 1), c.oid::regclass),
  c.oid::regclass::text
FROM pg_class AS c, aclexplode(c.relacl) AS g
WHERE c.relnamespace = to_regnamespace('public') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  AND g.grantee = 0
  AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e')
GROUP BY c.oid
"""

_SCHEMAS = """
SELECT nspname FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1
"""

_EXTENSIONS = "SELECT format('%s %s', extname, extversion) FROM pg_extension ORDER BY 1"

_PLATFORM = ("auth", "neon_auth")
"""Schemas that Neon makes; snapshots exclude them."""


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


@dataclass(frozen=True)
class Examination:
    """The results that do not need the built history."""

    checks: Sequence[Check]
    live: Live | None
    """The schema to compare with the history; None if no revision is recorded."""


def examine(target: URL, scripts: ScriptDirectory) -> Examination:
    """Run every check that does not need the built history.

    Raises:
        CannotRunError: the database cannot be reached or read, or the history cannot be read.

    """
    known = history_schemas.require_linear_history(scripts)

    def preflight_problems(connection: Connection) -> tuple[list[str], list[str]]:
        server_problems = _problems(connection, lambda: preflight.check_server(connection))
        return server_problems, _problems(
            connection, lambda: preflight.check_revision(connection, scripts)
        )

    # check_server reports read-only transactions, so it must not run in one.
    server_problems, revision_problems = read.read(target, preflight_problems, read_only=False)
    role, checks = read.read(target, lambda one: _environment(one, target, server_problems))
    if role is None:
        return Examination(checks, None)
    if not role.sees:
        return Examination([*checks, Check("revision", "not readable", revision_problems)], None)
    live = read.read_twice(target, read.read_live)
    return Examination(
        [*checks, *_contents(live, known, revision_problems)],
        live if live.recorded.revisions else None,
    )


def compared(live: Live, history: Mapping[str, snapshot.Snapshot]) -> Check:
    """Compare the schema with the history at the recorded revision."""
    found = comparison.compare(live, history)
    if found.behind:  # a deploy that applies a revision drops invalid indexes first
        facts = tuple(fact for fact in live.facts if not _is_invalid_index(fact))
        found = comparison.compare(replace(live, facts=facts), history)
    if not found.drifted:
        return Check("drift", "none")
    if found.record_differs:
        what = comparison.verdict(found)
        sentence = f"{comparison.sentence(found)}. {comparison.remedy(found)}"
    else:
        what = f"{pluralize(found.difference_count, 'fact')} away from {found.nearest}"
        sentence = (
            f"The schema differs from the history at {found.nearest}, so a deploy or its"
            " verification would fail. See the difference with schema drift --database-url …."
            f" {comparison.remedy(found)}"
        )
    return Check("drift", what, [sentence])


def ready(checks: Iterable[Check]) -> bool:
    """Whether a deploy may start."""
    return all(check.ready for check in checks)


def _problems(connection: Connection, check: Callable[[], Iterator[str]]) -> list[str]:
    """Return the messages of a preflight check. A missing privilege is a problem too."""
    problems: list[str] = []
    try:
        with connection.begin_nested():
            problems.extend(check())
    except DBAPIError as error:
        if not isinstance(error.orig, InsufficientPrivilege):
            raise
        problems.append(
            f"The role lacks a privilege: {first_error_line(error)}; connect as the owner."
        )
    return problems


def _environment(
    connection: Connection, target: URL, server_problems: Sequence[str]
) -> tuple[Row[Any] | None, list[Check]]:
    """Check everything except the schema; return None for the role if the schema is unreadable."""
    role = connection.execute(text(_ROLE)).one()
    shown: str = connection.exec_driver_sql("SHOW server_version").scalar_one().split()[0]
    server = _server_and_role(shown, role, server_problems)
    checks = [server, _host(target), _encryption(connection)]
    if read.major(shown) < postgres.OLDEST_VERSION or role.encoding != "UTF8":
        return None, checks  # query.sql supports neither
    return role, [
        *checks,
        _group_roles(connection),
        _public(connection),
        _platform(connection),
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
    fix, notes = [*server_problems], []
    if not role.has_public:
        fix.append("There is no schema public; create it: CREATE SCHEMA public.")
    elif role.owns and not role.creates:
        fix.append(
            f"The role {role.name} may not create objects in schema public; change the owner:"
            f" ALTER SCHEMA public OWNER TO {role.name}."
        )
    if read.major(shown) > NEWEST:
        notes.append(
            f"PostgreSQL {read.major(shown)} is newer than the newest tested version, {NEWEST}."
        )
    if role.superuser:
        notes.append("The role is a superuser: PostgreSQL will not stop a mistaken statement.")
    if not role.bypasses:
        notes.append(
            "The role has no BYPASSRLS, so a revision that changes rows finds none in tables with"
            " forced row security."
        )
    found = (
        f"PostgreSQL {shown}, {role.encoding}; {role.name}: {role.attributes or 'no attributes'}"
    )
    return Check("server and role", found, fix, notes)


def _group_roles(connection: Connection) -> Check:
    names = [APPLICATION, BETTER_AUTH]
    fix = []
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
        if not row.grantable:
            fix.append(
                f"Another role created {row.name}, and this role may not grant it to logins; have"
                f" that role run GRANT {row.name} TO … WITH ADMIN OPTION."
            )
    existing = [row.name for row in rows]
    missing = ", ".join(name for name in names if name not in existing)
    found = [", ".join(existing)] if existing else []
    found += [f"made by the first deploy: {missing}"] if missing else []
    return Check("group roles", "; ".join(found), fix)


def _public(connection: Connection) -> Check:
    rows = connection.execute(text(_PUBLIC)).all()
    fix = [
        f"Every role of the server has {privileges}; run REVOKE ALL ON {where} FROM PUBLIC."
        for privileges, where in rows
    ]
    found = "; ".join(privileges for privileges, _ in rows)
    return Check("PUBLIC", found or "nothing beyond defaults", fix)


def _platform(connection: Connection) -> Check:
    schemas = connection.execute(text(_SCHEMAS)).scalars().all()
    ours = [name for name in schemas if name not in _PLATFORM]
    theirs = [name for name in schemas if name in _PLATFORM]
    extensions = connection.execute(text(_EXTENSIONS)).scalars().all()
    found = f"{', '.join(ours)}; extensions {', '.join(extensions)}"
    if theirs:
        found += f"; the platform's, not compared: {', '.join(theirs)}"
    return Check("schemas", found)


def _contents(
    live: Live, known: Sequence[str], revision_problems: Sequence[str]
) -> Iterator[Check]:
    """Check the recorded revision, and an empty database for objects that no revision makes."""
    recorded = live.recorded
    at = recorded.revisions[0] if len(recorded.revisions) == 1 else None
    if recorded.unreadable is not None:
        found = "not readable"
    elif at in known:
        behind = len(known) - 1 - known.index(at)
        found = f"at {at}; {history_schemas.describe_distance(known[-1], behind)}"
    elif recorded.revisions:
        found = f"at {', '.join(recorded.revisions)}"
    else:
        found = "empty: the first deploy builds everything"
        if revision_problems:
            found = "tables without a revision"
    yield Check("revision", found, revision_problems)
    if recorded.revisions or revision_problems:
        return
    unknown = _unknown_objects(read.without_version_table(live.facts))
    named = ", ".join(unknown[:MAX_NAMED])
    if len(unknown) > MAX_NAMED:
        named += f" and {len(unknown) - MAX_NAMED} more"
    sentence = (
        f"No revision makes {named}, so the verification at the end of a deploy would fail; drop"
        " unneeded objects, and write a revision for the others."
    )
    yield Check("other objects", named or "none", [sentence] if unknown else [])


def _unknown_objects(found: snapshot.Snapshot) -> list[str]:
    """Return what the database has and the committed schema does not have.

    PUBLIC's default privileges are not listed: the revisions revoke them.
    """
    unknown = []
    heading, new = "", False
    difference = snapshot.text_difference(
        verification.committed_schema(), snapshot.layout(found, None)
    )
    for sign, line in ((line[:1], line[2:]) for line in difference.splitlines()):
        if not line.startswith(" "):
            heading, new = line, sign == "+"
            # A snapshot lists a role only if an owner or a privilege, listed too, names it.
            if new and not heading.startswith("role "):
                unknown.append(heading)
        elif sign == "+" and not new and not line.strip().startswith("grant to PUBLIC"):
            unknown.append(f"{heading}: {' '.join(line.split())}")
    return unknown


def _indexes(connection: Connection) -> Check:
    invalid = preflight.invalid_indexes(connection, being_built=False)
    if not invalid:
        return Check("indexes", "none is invalid")
    note = (
        "An interrupted build left them invalid; the next deploy that applies a revision drops"
        " them."
    )
    return Check("indexes", f"invalid: {', '.join(invalid)}", notes=[note])


def _is_invalid_index(fact: snapshot.Fact) -> bool:
    return fact.part.startswith("index ") and "INVALID" in fact.definition.split("  ")


def _sessions(connection: Connection, *, everybody: bool) -> Check:
    """Find sessions that a deploy may wait for; a deploy only warns of them."""
    notes = list(preflight.blockers(connection))
    whose = "" if everybody else " among this role's sessions (pg_monitor shows the others)"
    found = f"{pluralize(len(notes), 'thing')} to wait for" if notes else "nothing to wait for"
    return Check("sessions", found + whose, notes=notes)
