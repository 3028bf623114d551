"""`schema doctor`: what has to be fixed in a database, a server or a URL before the first deploy.

What a deploy itself refuses or warns of is asked of the deploy's own code. The rest is what it
would only notice afterwards, or never. Nothing is written.
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
"""The newest major version that the schema was proved on."""

SHOWN = 5
"""How many objects a sentence names."""

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

# What makes a revision refuse a group role, and who may make a login that holds it.
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
"""Schemas that Neon makes, and that no comparison looks into."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    found: str
    fix: Sequence[str] = ()
    """What a deploy would fail at, with what to do: a sentence each."""
    notes: Sequence[str] = ()
    """What is good to know, and keeps nobody from a deploy."""

    @property
    def ready(self) -> bool:
        """Whether there is nothing to fix."""
        return not self.fix


@dataclass(frozen=True)
class Examination:
    """What was found without the history being built."""

    checks: Sequence[Check]
    live: Live | None
    """What is to be compared with the history; None where no revision is recorded."""


def examine(target: URL, scripts: ScriptDirectory) -> Examination:
    """Look at everything that the database itself shows.

    Raises:
        CannotRunError: the database cannot be reached or read, or the history cannot be read.

    """
    known = history_schemas.require_linear_history(scripts)

    def obstacles_of(connection: Connection) -> tuple[list[str], list[str]]:
        refused = _sentences(connection, lambda: preflight.check_server(connection))
        return refused, _sentences(
            connection, lambda: preflight.check_revision(connection, scripts)
        )

    # A deploy's own look is to find transactions that are read only: it gets one of the usual kind.
    refused, lost = read.read(target, obstacles_of, read_only=False)
    role, checks = read.read(target, lambda one: _surroundings(one, target, refused))
    if role is None:
        return Examination(checks, None)
    if not role.sees:
        return Examination([*checks, Check("revision", "not readable", lost)], None)
    live = read.read_twice(target, read.look)
    return Examination(
        [*checks, *_content(live, known, lost)], live if live.recorded.revisions else None
    )


def compared(live: Live, history: Mapping[str, snapshot.Snapshot]) -> Check:
    """Compare the schema with what the history builds at the recorded revision."""
    found = comparison.compare(live, history)
    if found.behind:  # a deploy that applies something drops these first
        facts = tuple(fact for fact in live.facts if not _invalid(fact))
        found = comparison.compare(replace(live, facts=facts), history)
    if not found.drifted:
        return Check("drift", "none")
    if found.misplaced:
        what = comparison.verdict(found)
        sentence = f"{comparison.statement(found)}. {comparison.remedy(found)}"
    else:
        what = f"{pluralize(found.difference_count, 'fact')} away from {found.nearest}"
        sentence = (
            f"The schema is not what the history builds at {found.nearest}: a deploy would fail, or"
            " end by saying so. Compare them (schema drift --database-url …)."
            f" {comparison.remedy(found)}"
        )
    return Check("drift", what, [sentence])


def ready(checks: Iterable[Check]) -> bool:
    """Whether a deploy may go on."""
    return all(check.ready for check in checks)


def _sentences(connection: Connection, find: Callable[[], Iterator[str]]) -> list[str]:
    """What a deploy finds fault with; that the role may not even look is a fault too."""
    found: list[str] = []
    try:
        with connection.begin_nested():
            found.extend(find())
    except DBAPIError as error:
        if not isinstance(error.orig, InsufficientPrivilege):
            raise
        found.append(f"The role may not look: {first_error_line(error)}; connect as the owner.")
    return found


def _surroundings(
    connection: Connection, target: URL, refused: Sequence[str]
) -> tuple[Row[Any] | None, list[Check]]:
    """Look at everything but the schema; without the role where the schema cannot be read."""
    role = connection.execute(text(_ROLE)).one()
    shown: str = connection.exec_driver_sql("SHOW server_version").scalar_one().split()[0]
    server = _server_and_role(shown, role, refused)
    checks = [server, _host(target), _encryption(connection)]
    if read.major(shown) < postgres.OLDEST_VERSION or role.encoding != "UTF8":
        return None, checks  # the snapshot query is for neither
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
        return Check("host", "Neon's direct host" if neon else "no pooled host of Neon's")
    sentence = (
        "A deploy needs the direct host, because a pooler keeps neither its lock nor its settings;"
        " leave -pooler out of the host's name."
    )
    return Check("host", "Neon's pooled host", [sentence])


def _encryption(connection: Connection) -> Check:
    """Ask the driver: behind a proxy that ends TLS, as Neon's does, the server knows of none."""
    driver: Any = connection.connection.driver_connection
    mode = driver.info.get_parameters().get("sslmode", "prefer")
    return encryption(driver.info.host, mode, encrypted=driver.pgconn.ssl_in_use)


def encryption(host: str, mode: str, *, encrypted: bool) -> Check:
    """Judge a connection by whom it leads to, libpq's `sslmode`, and what became of it."""
    if not host or host.startswith("/") or host in {"localhost", "127.0.0.1", "::1"}:
        return Check("encryption", "not needed: the server is on this machine")
    found = f"{'encrypted' if encrypted else 'not encrypted'}, sslmode={mode}"
    better = "sslmode=verify-full&sslrootcert=system"
    if not encrypted or mode in {"disable", "allow", "prefer"}:
        sentence = (
            "The connection may go unencrypted, and whoever is in between would read everything;"
            f" end the URL in ?sslmode=require, or better in ?{better}."
        )
        return Check("encryption", found, [sentence])
    if mode != "verify-full":
        note = f"Nothing says that the server is the right one; {better} would."
        return Check("encryption", found, notes=[note])
    return Check("encryption", found)


def _server_and_role(shown: str, role: Row[Any], refused: Sequence[str]) -> Check:
    fix, notes = [*refused], []
    if not role.has_public:
        fix.append("There is no schema public; make it: CREATE SCHEMA public.")
    elif role.owns and not role.creates:
        fix.append(
            f"The role {role.name} may not make objects in schema public; have the schema handed"
            f" over: ALTER SCHEMA public OWNER TO {role.name}."
        )
    if read.major(shown) > NEWEST:
        notes.append(f"PostgreSQL {read.major(shown)} is newer than what was tried, {NEWEST}.")
    if role.superuser:
        notes.append("The role is a superuser, whom no mistake in a revision is refused.")
    if not role.bypasses:
        notes.append(
            "The role has no BYPASSRLS: a revision that changes rows would find none where row"
            " security is forced."
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
                f"The role {row.name} has {row.attributes.replace(' ', ', ')}, and revisions refuse"
                f" it; take it away: ALTER ROLE {row.name} {without}."
            )
        if row.memberships:
            held = ", ".join(row.memberships)
            fix.append(
                f"The role {row.name} is a member of {held}, and revisions refuse it; take it away:"
                f" REVOKE {held} FROM {row.name}."
            )
        if not row.grantable:
            fix.append(
                f"Another role has made {row.name}, and this one may not give it to logins; have it"
                f" granted by whoever may: GRANT {row.name} TO … WITH ADMIN OPTION."
            )
    there = [row.name for row in rows]
    missing = ", ".join(name for name in names if name not in there)
    found = [", ".join(there)] if there else []
    found += [f"made by the first deploy: {missing}"] if missing else []
    return Check("group roles", "; ".join(found), fix)


def _public(connection: Connection) -> Check:
    rows = connection.execute(text(_PUBLIC)).all()
    fix = [
        f"Every role of the server has {what}; take it away: REVOKE ALL ON {where} FROM PUBLIC."
        for what, where in rows
    ]
    return Check("PUBLIC", "; ".join(what for what, _ in rows) or "nothing beyond defaults", fix)


def _platform(connection: Connection) -> Check:
    schemas = connection.execute(text(_SCHEMAS)).scalars().all()
    ours = [name for name in schemas if name not in _PLATFORM]
    theirs = [name for name in schemas if name in _PLATFORM]
    extensions = connection.execute(text(_EXTENSIONS)).scalars().all()
    found = f"{', '.join(ours)}; extensions {', '.join(extensions)}"
    if theirs:
        found += f"; the platform's, left alone: {', '.join(theirs)}"
    return Check("schemas", found)


def _content(live: Live, known: Sequence[str], lost: Sequence[str]) -> Iterator[Check]:
    """Where the database is, and what is in it that no revision has made."""
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
        found = "tables without a revision" if lost else "empty: the first deploy builds everything"
    yield Check("revision", found, lost)
    if recorded.revisions or lost:
        return
    strangers = _strangers(read.without_version_table(live.facts))
    named = ", ".join(strangers[:SHOWN])
    if len(strangers) > SHOWN:
        named += f" and {len(strangers) - SHOWN} more"
    sentence = (
        f"No revision makes {named}, and a deploy would end by saying that the schema is not the"
        " committed one; drop what nobody needs, and write a revision for the rest."
    )
    yield Check("other objects", named or "none", [sentence] if strangers else [])


def _strangers(found: snapshot.Snapshot) -> list[str]:
    """Name what an empty database has and the committed schema has not.

    What PUBLIC may do to a new database and its schema, the revisions take away.
    """
    strangers = []
    heading, new = "", False
    difference = snapshot.text_difference(
        verification.committed_schema(), snapshot.layout(found, None)
    )
    for sign, line in ((line[:1], line[2:]) for line in difference.splitlines()):
        if not line.startswith(" "):
            heading, new = line, sign == "+"
            # A role is named where it owns or may do something, and that is a line of its own.
            if new and not heading.startswith("role "):
                strangers.append(heading)
        elif sign == "+" and not new and not line.strip().startswith("grant to PUBLIC"):
            strangers.append(f"{heading}: {' '.join(line.split())}")
    return strangers


def _indexes(connection: Connection) -> Check:
    invalid = preflight.invalid_indexes(connection, being_built=False)
    if not invalid:
        return Check("indexes", "none is invalid")
    note = "A build that was cut left them; the next deploy that applies something drops them."
    return Check("indexes", f"invalid: {', '.join(invalid)}", notes=[note])


def _invalid(fact: snapshot.Fact) -> bool:
    return fact.part.startswith("index ") and "INVALID" in fact.definition.split("  ")


def _sessions(connection: Connection, *, everybody: bool) -> Check:
    """What a deploy warns of: it may have to wait, and gives way meanwhile."""
    notes = list(preflight.waits(connection))
    whose = "" if everybody else " of this role (pg_monitor would show the others)"
    found = f"{pluralize(len(notes), 'thing')} to wait for" if notes else "nothing to wait for"
    return Check("sessions", found + whose, notes=notes)
