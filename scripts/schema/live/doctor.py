"""`schema doctor`: find what to fix in a database, a server or a URL before a deploy; only reads.

It runs the deploy's own preflight checks, and others that a deploy runs too late or never.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alembic.script import ScriptDirectory
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import URL, Connection, Row, text
from sqlalchemy.exc import DBAPIError

from migrations import postgres, snapshot
from migrations.deploy import preflight, verification
from migrations.postgres import first_error_line, is_pooled
from migrations.snapshot import fingerprints
from migrations.snapshot.fingerprints import BASE, History
from schema.live import (
    comparison,
    differences,
    drift,
    history_schemas,
    platform,
    read,
    trial,
)
from schema.live.comparison import Comparison
from schema.live.difference import Difference
from schema.live.differences import find
from schema.live.read import Live
from schema.postgres.connection import connect
from schema.roles import APPLICATION, BETTER_AUTH
from schema.text import pluralize

MAX_NAMED = 5
"""How many differences a check names."""

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


type Progress = Callable[[str], None]


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
    """The schema to compare with the history; None if it could not be read."""
    history: History


def examine(target: URL, scripts: ScriptDirectory) -> Examination:
    """Run every check that does not need the built history.

    Raises:
        CannotRunError: the database cannot be reached or read, or the history cannot be read.

    """
    history = history_schemas.committed(scripts)
    known = [name for name in history if name != BASE]

    def preflight_problems(connection: Connection) -> tuple[list[str], list[str]]:
        def row_security() -> Iterator[str]:
            pending = preflight.recorded_revisions(connection) != known[-1:]
            return preflight.check_row_security(connection, pending=pending)

        server_problems = _problems(connection, lambda: preflight.check_server(connection))
        revision_problems = _problems(
            connection, lambda: preflight.check_revision(connection, scripts)
        )
        if not server_problems and not revision_problems:
            server_problems = _problems(connection, row_security)
        return server_problems, revision_problems

    # check_server reports read-only transactions, so it must not run in one.
    server_problems, revision_problems = read.read(target, preflight_problems, read_only=False)
    role, checks = read.read(target, lambda one: _environment(one, target, server_problems))
    if role is None:
        return Examination(checks, None, history)
    if not role.sees:
        unread = Check("revision", "not readable", revision_problems)
        return Examination([*checks, unread], None, history)
    live, judged = drift.read_judged(target, fingerprints.owned(history))
    checks += [_contents(live, known, revision_problems), _beside(judged)]
    return Examination(checks, live, history)


def compared(examined: Examination, scripts: ScriptDirectory, progress: Progress) -> list[Check]:
    """Compare the schema with the history, and try the next deploy on a copy where they differ.

    Raises:
        CannotRunError: the history does not build.

    """
    live, history = examined.live, examined.history
    revision = next((one for one in examined.checks if one.name == "revision"), None)
    if live is None or live.recorded.unreadable is not None:
        return []
    live = _with_rebuilt_indexes(live)
    found = comparison.compare(live, history)
    others = _others(live, found)
    if found.revision is None and (live.recorded.revisions or found.nearest != BASE):
        return [_wrong_record(found), others]
    at = found.revision or BASE
    differs = found.nearest != at or bool(found.objects.differing)
    schema = f"as the history builds it at {at}" if not differs else comparison.verdict(found)
    if not found.behind:
        return [Check("schema", schema, _nothing_to_apply(found) if differs else ()), others]
    if revision is not None and revision.fix:
        return [Check("schema", schema), others]
    with (
        history_schemas.open_closest_server(live, progress) as server,
        history_schemas.at_revision(server, scripts, at) as copy,
    ):
        progress("the next deploy, on a copy")
        with connect(copy.owner) as connection:
            expected = snapshot.read(connection, version_table=True)
        problem, untried = trial.try_deploy(copy, live, scripts, history)
    said = find(expected, live.facts, fingerprints.owned(history)) if differs else []
    notes = [f"{one.sentence[0].upper()}{one.sentence[1:]}." for one in said[:MAX_NAMED]]
    if found.record_differs and found.recorded.revisions:
        notes = [f"{comparison.sentence(found)}. {comparison.remedy(found)}"]
    next_deploy = _next_deploy(found, problem, untried)
    return [Check("schema", schema, notes=notes), others, next_deploy]


def _with_rebuilt_indexes(live: Live) -> Live:
    """Return the schema as a deploy leaves it, which rebuilds the invalid indexes of schema.txt."""
    committed = verification.committed_schema()

    def rebuilt(fact: snapshot.Fact) -> snapshot.Fact:
        name = fact.part.removeprefix("index ")
        if fact.part.startswith("index ") and preflight.is_committed(name, committed):
            return fact._replace(definition=fact.definition.replace("  INVALID", "", 1))
        return fact

    return replace(live, facts=tuple(map(rebuilt, live.facts)))


def _others(live: Live, found: Comparison) -> Check:
    """Name what no revision has, and note what of it changes who may read our rows."""
    foreign = drift.not_ignored(found)
    alarming = differences.alarming(live.facts, found.objects.foreign)
    notes = [
        f"{name} changes who may read or write our rows: see schema drift."
        for name in sorted(alarming)
    ]
    return Check("other objects", verification.named(foreign) or "none", notes=notes)


def _wrong_record(found: Comparison) -> Check:
    """Say which revision the schema has, where none or no single one is recorded."""
    if found.recorded.revisions:
        sentence = f"{comparison.sentence(found)}. {comparison.remedy(found)}"
        return Check("schema", comparison.verdict(found), [sentence])
    return Check("schema", comparison.verdict(found))  # the revision's check says to adopt it


def _nothing_to_apply(found: Comparison) -> list[str]:
    """Say why a deploy that applies nothing ends with exit code 3."""
    if found.record_differs:
        return [f"{comparison.sentence(found)}. {comparison.remedy(found)}"]
    names = verification.named(found.objects.differing)
    verb = "differs" if len(found.objects.differing) == 1 else "differ"
    return [
        f"A deploy would apply nothing and end with exit code 3: {names} {verb} from the history."
        " schema drift shows what differs, and the SQL that undoes it."
    ]


def _next_deploy(found: Comparison, problem: str | None, untried: Sequence[str]) -> Check:
    """Report what the next deploy did on a copy of the schema, without rows."""
    notes = []
    if untried:
        notes.append(f"The copy lacked {verification.named(untried)}, so it says nothing of that.")
    if problem is None:
        found_there = "tried on a copy without rows: it ends as it should"
        return Check("next deploy", found_there, notes=notes)
    sentence = f"Tried on a copy of the schema, {problem.rstrip('.')}."
    if found.record_differs and found.recorded.revisions:
        sentence += f" {comparison.sentence(found)}. {comparison.remedy(found)}"
    elif not found.objects.differing and not found.objects.foreign:
        sentence += " Correct the revision, or revert what added it."
    elif found.objects.differing:
        sentence += " schema drift shows what differs now, and the SQL that undoes it."
    else:
        sentence += (
            " Move or rename what stands in its way, if it is not needed where it is; the other"
            " objects are not the history's."
        )
    return Check("next deploy", "it fails on a copy without rows", [sentence], notes)


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
        _group_roles(connection, owns=role.owns),
        _platform(connection, sees=role.sees),
        _indexes(connection),
        _sessions(connection, everybody=role.sees_sessions),
    ]


def _beside(judged: Sequence[Difference]) -> Check:
    """Note what the logins and the platform can do: a deploy does not depend on it."""
    found = f"{pluralize(len(judged), 'thing')} to look at" if judged else "nothing to look at"
    notes = [f"{one.sentence[0].upper()}{one.sentence[1:]}." for one in judged]
    return Check("logins and platform", found, notes=notes)


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


def _contents(live: Live, known: Sequence[str], revision_problems: Sequence[str]) -> Check:
    """Check the recorded revision."""
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
            found = "the history's tables without a revision"
    return Check("revision", found, revision_problems)


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
