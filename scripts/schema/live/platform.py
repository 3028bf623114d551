"""What a platform adds to a database, judged: who reaches our rows by it, and what else is there.

Snapshots leave out the objects of the platform. What Neon's Data API grants, and what its
authentication is trusted with, decides about our rows all the same.
"""

import re
from collections.abc import Collection, Iterator

from sqlalchemy import Connection, text

from migrations import snapshot
from schema.live import exposures
from schema.live.difference import Difference, Severity
from schema.text import pluralize

DATA_API = ("anon", "anonymous", "authenticated", "authenticator")
"""The roles of Neon's Data API, and of others like it."""

SESSION_JWT = "extension pg_session_jwt"

_DEFAULT_PRIVILEGES = "default privileges of "

# In SQL strings, a function's body is text; otherwise it has dependencies, as policies have.
_JWT_USES = text(
    r"""
    WITH jwt AS (
      SELECT d.objid FROM pg_depend AS d JOIN pg_extension AS e ON d.refobjid = e.oid
      WHERE d.refclassid = 'pg_extension'::regclass AND e.extname = 'pg_session_jwt'
        AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
    )
    SELECT 'table ' || p.polrelid::regclass, 'policy ' || quote_ident(p.polname)
    FROM pg_policy AS p
    JOIN pg_depend AS d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
    WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid IN (SELECT objid FROM jwt)
    UNION
    SELECT 'table ' || a.adrelid::regclass, 'column ' || quote_ident(c.attname)
    FROM pg_attrdef AS a
    JOIN pg_attribute AS c ON c.attrelid = a.adrelid AND c.attnum = a.adnum
    JOIN pg_depend AS d ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid
    WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid IN (SELECT objid FROM jwt)
    UNION
    SELECT 'function ' || p.oid::regprocedure, ''
    FROM pg_proc AS p
    WHERE (p.prosrc ~* '\mauth\s*\.\s*(user_id|uid|session|jwt)\s*\(' OR EXISTS (
      SELECT FROM pg_depend AS d
      WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
        AND d.refclassid = 'pg_proc'::regclass AND d.refobjid IN (SELECT objid FROM jwt)
    ))
    ORDER BY 1, 2
    """
)

_JWT = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_session_jwt')"

_SCHEMAS = """
SELECT quote_ident(nspname) FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY nspname
"""

_OWNER = """
SELECT quote_ident(pg_get_userbyid(datdba)) FROM pg_database WHERE datname = current_database()
"""

_NEON_AUTH = """
SELECT quote_ident(pg_get_userbyid(n.nspowner)) AS owner, count(c.oid) AS tables,
  coalesce(bool_or(c.relname = 'users_sync'), false) AS older
FROM pg_namespace AS n
LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p')
WHERE n.nspname = 'neon_auth'
GROUP BY n.oid
"""


def judge(connection: Connection, owned: Collection[str]) -> list[Difference]:
    """Find how others reach our rows, and what the platform has put beside our tables.

    `owned` are the headings of the history's objects in a snapshot, such as `table todo`. The
    connection must be in a transaction, not in autocommit mode. A grant that the history makes
    itself is listed too: leave out what has the history's `object` and `part`.

    Raises:
        DBAPIError: the catalogs could not be read.
        psycopg.Error: see `migrations.snapshot.read`.

    """
    owner = connection.exec_driver_sql(_OWNER).scalar_one()
    return [
        *_data_api(snapshot.read(connection, version_table=True), owned, owner),
        *_session_jwt(connection, owned),
        *exposures.find(connection, owned),
        *_neon_auth(connection),
    ]


def schemas_left_out(connection: Connection, facts: snapshot.Snapshot) -> list[str]:
    """List the schemas of which a snapshot shows at most what others made there: the platform's.

    `facts` are the connection's snapshot.

    Raises:
        DBAPIError: the catalogs could not be read.

    """
    shown = {fact.object for fact in facts}
    names = connection.exec_driver_sql(_SCHEMAS).scalars()
    return [name for name in names if f"schema {name}" not in shown]


def _data_api(facts: snapshot.Snapshot, owned: Collection[str], owner: str) -> Iterator[Difference]:
    """Report grants to the Data API's roles: `object`, `part` and `found` are the snapshot's."""
    for fact in facts:
        role = fact.part.rpartition(" to ")[2]
        is_default = fact.object.startswith(_DEFAULT_PRIVILEGES)
        is_grant = fact.part.startswith("grant ") and fact.object in owned
        if role not in DATA_API or not (is_default or is_grant):
            continue
        what = fact.part.rpartition(" to ")[0] if is_default else fact.object
        yield Difference(
            object=fact.object,
            part=fact.part,
            was=None,
            found=fact.definition,
            severity=Severity.ISOLATION,
            sentence=(
                f"the Data API's role {role} has {fact.definition} on"
                f" {'new ' if is_default else ''}{what}, and no revision granted it"
            ),
            sql=_revoke_default(fact, role, owner) if is_default else _revoke(fact, role),
        )


def _revoke(fact: snapshot.Fact, role: str) -> str | None:
    """Return the statement that takes a grant back, if the owner made it on a table or schema."""
    kind, _, name = fact.object.partition(" ")
    if kind not in {"table", "schema", "sequence", "function"} or " by " in fact.definition:
        return None
    column = re.fullmatch(r"grant on column (.+) to .+", fact.part)
    if column is None:
        return f"REVOKE ALL ON {kind.upper()} {name} FROM {role}"
    return f"REVOKE ALL ({column[1]}) ON {kind.upper()} {name} FROM {role}"


def _revoke_default(fact: snapshot.Fact, role: str, owner: str) -> str | None:
    """Return the statement that takes default privileges back, if the owner of the database may."""
    what = re.fullmatch(r"([a-z ]+?)(?: in schema (.+))? to .+", fact.part)
    if what is None or fact.object != f"{_DEFAULT_PRIVILEGES}<owner>":
        return None
    where = "" if what[2] is None else f" IN SCHEMA {what[2]}"
    return (
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner}{where}"
        f" REVOKE ALL ON {what[1].upper()} FROM {role}"
    )


def _session_jwt(connection: Connection, owned: Collection[str]) -> Iterator[Difference]:
    """Report pg_session_jwt: any session can set the claims that it reads."""
    if not connection.exec_driver_sql(_JWT).scalar_one():
        return
    with exposures.names_of_snapshot(connection):
        rows = connection.execute(_JWT_USES).all()
    uses = [(heading, part) for heading, part in rows if heading in owned]
    for heading, part in uses:
        yield _trusts_claims(
            heading,
            part,
            Severity.ISOLATION,
            f"{f'{part} on {heading}' if part else heading} asks pg_session_jwt who the user is,"
            " and any session can set request.jwt.claims, which it believes without a key",
        )
    if not uses:
        yield _trusts_claims(
            SESSION_JWT,
            "",
            Severity.BEHAVIOUR,
            "pg_session_jwt is installed, and no policy of ours uses it; do not begin to: any"
            " session can set request.jwt.claims, which it believes without a key",
        )


def _trusts_claims(heading: str, part: str, severity: Severity, sentence: str) -> Difference:
    return Difference(
        object=heading,
        part=part,
        was=None,
        found="request.jwt.claims",
        severity=severity,
        sentence=sentence,
    )


def _neon_auth(connection: Connection) -> Iterator[Difference]:
    """Note users that are not the history's."""
    for owner, tables, older in connection.exec_driver_sql(_NEON_AUTH):
        what = "Neon Auth's older form, a copy of another service's users,"
        if not older:
            what = "Neon's managed Better Auth, with users of its own,"
        yield Difference(
            object="schema neon_auth",
            part="",
            was=None,
            found=f"{pluralize(tables, 'table')}, owner {owner}",
            severity=Severity.BEHAVIOUR,
            sentence=(
                f"{what} is in schema neon_auth ({pluralize(tables, 'table')}, owner {owner}),"
                " beside the users in our own tables; an application uses one of the two"
            ),
        )
