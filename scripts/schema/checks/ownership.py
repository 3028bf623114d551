"""The rules of user isolation, checked in the catalogs of a database at head.

The model of every table declares who may access it, or the table is listed with a reason; every
foreign key has an index; the group roles and PUBLIC have no excess privilege. The reasons are in
migrations/adr/0001-ownership-in-the-database.md.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from sqlalchemy import URL, Connection, Row, text

from schema.access.declared import BOOKKEEPING, access_of, declared_accesses, rules_of
from schema.access.privileges import IDENTITY, TABLES, WRITE, role_privileges
from schema.checks.result import CheckResult, Failure
from schema.postgres.connection import connect
from schema.roles import APPLICATION, BETTER_AUTH
from schema.rows.tables import OWN_SCHEMAS
from schema.text import pluralize

# Deleting a parent row cannot use a partial index or an index on an expression.
UNINDEXED_FOREIGN_KEYS = f"""
SELECT k.conrelid::regclass::text, k.conname, pg_get_constraintdef(k.oid)
FROM pg_constraint AS k
JOIN pg_namespace AS n ON n.oid = k.connamespace
WHERE k.contype = 'f' AND {OWN_SCHEMAS} AND NOT EXISTS (
  SELECT FROM pg_index AS i
  WHERE i.indrelid = k.conrelid AND i.indisvalid AND i.indpred IS NULL
    AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey
)
ORDER BY 1, 2
"""

PUBLIC_PRIVILEGES = f"""
SELECT 'table ' || c.oid::regclass::text, g.privilege_type
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN aclexplode(c.relacl) AS g
WHERE g.grantee = 0 AND {OWN_SCHEMAS}
UNION ALL
SELECT 'column ' || a.attrelid::regclass::text || '.' || a.attname, g.privilege_type
FROM pg_attribute AS a
JOIN pg_class AS c ON c.oid = a.attrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN aclexplode(a.attacl) AS g
WHERE g.grantee = 0 AND {OWN_SCHEMAS}
UNION ALL
SELECT 'function ' || p.oid::regprocedure::text, g.privilege_type
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
CROSS JOIN aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS g
WHERE g.grantee = 0 AND {OWN_SCHEMAS}
  AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = p.oid AND d.deptype = 'e')
UNION ALL
SELECT 'schema ' || n.nspname, g.privilege_type
FROM pg_namespace AS n
CROSS JOIN aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS g
WHERE g.grantee = 0 AND {OWN_SCHEMAS}
UNION ALL
SELECT 'the database', g.privilege_type
FROM pg_database AS b
CROSS JOIN aclexplode(coalesce(b.datacl, acldefault('d', b.datdba))) AS g
WHERE g.grantee = 0 AND b.datname = current_database() AND g.privilege_type <> 'CONNECT'
ORDER BY 1, 2
"""

# Objects that run with their owner's rights bypass isolation: Neon's owner ignores row security.
OWNERS_RIGHTS = f"""
SELECT CASE c.relkind WHEN 'm' THEN 'materialized view ' ELSE 'view ' END || c.relname, r.rolname
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_roles AS r ON r.rolname IN ('{APPLICATION}', '{BETTER_AUTH}')
WHERE c.relkind IN ('v', 'm') AND {OWN_SCHEMAS} AND has_any_column_privilege(r.oid, c.oid, 'SELECT')
  AND NOT coalesce(
    (SELECT o.option_value::boolean FROM pg_options_to_table(c.reloptions) AS o
     WHERE o.option_name = 'security_invoker'), false)
UNION ALL
SELECT 'SECURITY DEFINER function ' || p.oid::regprocedure::text, r.rolname
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
JOIN pg_roles AS r ON r.rolname IN ('{APPLICATION}', '{BETTER_AUTH}')
WHERE p.prosecdef AND {OWN_SCHEMAS} AND has_function_privilege(r.oid, p.oid, 'EXECUTE')
UNION ALL
SELECT 'rule ' || w.rulename || ' on ' || c.relname, r.rolname
FROM pg_rewrite AS w
JOIN pg_class AS c ON c.oid = w.ev_class
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_roles AS r ON r.rolname IN ('{APPLICATION}', '{BETTER_AUTH}')
WHERE w.rulename <> '_RETURN' AND {OWN_SCHEMAS}
  AND has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE')
ORDER BY 1, 2
"""

ROLES = f"""
SELECT
  r.rolname,
  concat_ws(', ',
    CASE WHEN r.rolsuper THEN 'SUPERUSER' END,
    CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END,
    CASE WHEN r.rolcanlogin THEN 'LOGIN' END,
    CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
    CASE WHEN r.rolcreatedb THEN 'CREATEDB' END,
    CASE WHEN r.rolreplication THEN 'REPLICATION' END,
    (SELECT string_agg('membership in ' || m.roleid::regrole, ', ')
     FROM pg_auth_members AS m WHERE m.member = r.oid),
    CASE WHEN has_schema_privilege(r.oid, 'public', 'CREATE') THEN 'CREATE on schema public' END,
    CASE WHEN has_database_privilege(r.oid, current_database(), 'CREATE')
      THEN 'CREATE on the database' END,
    CASE WHEN has_database_privilege(r.oid, current_database(), 'TEMPORARY')
      THEN 'TEMPORARY on the database' END,
    (SELECT string_agg('ownership of ' || c.oid::regclass, ', ')
     FROM pg_class AS c WHERE c.relowner = r.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S'))
  )
FROM pg_roles AS r
WHERE r.rolname IN ('{APPLICATION}', '{BETTER_AUTH}')
ORDER BY 1
"""


WORDS = {
    "owned": "of a user's own",
    "shared": "shared with members",
    "membership": "of members",
    "reference": "of reference data",
    "Better Auth": "of Better Auth's",
}


def check(head: URL) -> CheckResult:
    """Check the rules in a database at head."""
    with connect(head) as connection:
        tables = connection.execute(text(TABLES), {"identity": IDENTITY}).all()
        keys = connection.execute(
            text("SELECT count(*) FROM pg_constraint WHERE contype = 'f'")
        ).scalar_one()
        failures = [
            *(failure for table in tables for failure in _table(table)),
            *_foreign_keys(connection),
            *_privileges(connection),
        ]
    kinds = Counter(access.kind for access in declared_accesses().values())
    tables_by_kind = ", ".join(
        f"{pluralize(number, 'table')} {WORDS[kind]}" for kind, number in kinds.items()
    )
    covered = f"{tables_by_kind}; {pluralize(keys, 'foreign key')}; 2 roles"
    return CheckResult(covered, failures)


def _table(table: Row[Any]) -> Iterator[Failure]:
    if table.name in BOOKKEEPING:
        return
    access = access_of(table.name)
    if access is None:
        yield Failure(
            f"No model declares who may access table {table.name}.",
            "Derive its model from Owned, OwnedLink, Shared, Membership, Reference or"
            " BetterAuthTable of models/.",
        )
        if not table.has_user:
            return
    if access is None or access.row_security:
        yield from _secured(table)
    if access is None or access.kind in {"owned", "shared", "membership"}:
        yield from _keyed(table)
    if access is None or access.kind == "owned":
        for policy in table.other_policies:
            yield Failure(
                f"Policy {policy} on table {table.name} does not compare user_id with"
                " (SELECT app_user_id()).",
                "Any other condition may show other users' rows or prevent the use of the index.",
            )


def _secured(table: Row[Any]) -> Iterator[Failure]:
    if not table.secured:
        yield Failure(
            f"Row security is not enabled and forced on table {table.name}.",
            f'ALTER TABLE "{table.name}" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY.',
        )
    if not table.has_policy:
        yield Failure(
            f"Table {table.name} has no policy.",
            "Without a policy no role can see its rows: CREATE POLICY.",
        )


def _keyed(table: Row[Any]) -> Iterator[Failure]:
    if not table.key_leads_with_user:
        yield Failure(
            f"The primary key of table {table.name} does not lead with user_id.",
            "Make it (user_id, id): queries then find a user's rows by the key, and children can"
            " reference (user_id, id).",
        )
    if not table.references_user:
        yield Failure(
            f'{table.name}.user_id is not a validated, NOT NULL reference to "user" with'
            " ON DELETE CASCADE.",
            'Add FOREIGN KEY (user_id) REFERENCES "user" (id) ON DELETE CASCADE, or a cascading'
            " key that includes user_id to an owned parent.",
        )
    for key in table.ownerless_keys:
        yield Failure(
            f"Foreign key {key} on table {table.name} references an owned table without its"
            " user_id.",
            "Reference (user_id, id): otherwise a row can reference another user's row.",
        )


def _foreign_keys(connection: Connection) -> Iterator[Failure]:
    for table, name, definition in connection.execute(text(UNINDEXED_FOREIGN_KEYS)):
        yield Failure(
            f"No index leads with the columns of foreign key {name} on {table}: {definition}.",
            "Add one: without it, deleting a parent row reads the whole child table.",
        )


def _privileges(connection: Connection) -> Iterator[Failure]:
    for relation, kind, role, held in role_privileges(connection):
        # OWNERS_RIGHTS checks SELECT on views.
        excess = set(held) - (_allowed(role, relation) | ({"SELECT"} if kind == "v" else set()))
        if excess:
            yield Failure(
                f"{role} has {', '.join(sorted(excess))} on {relation}.",
                f'REVOKE {", ".join(sorted(excess))} ON "{relation}" FROM {role} (or from PUBLIC,'
                " or from the role that it is a member of).",
            )
    for name, privilege in connection.execute(text(PUBLIC_PRIVILEGES)):
        yield Failure(
            f"PUBLIC has {privilege} on {name}.",
            "Revoke it, and grant it to the group roles that need it: every role is in PUBLIC.",
        )
    for name, role in connection.execute(text(OWNERS_RIGHTS)):
        yield Failure(
            f"{role} may use {name}, which runs with its owner's rights.",
            "On Neon the owner ignores row security: make a view WITH (security_invoker = true), a"
            " function SECURITY INVOKER, or revoke the grant.",
        )
    found = connection.execute(text(ROLES)).all()
    for role in {APPLICATION, BETTER_AUTH} - {row[0] for row in found}:
        yield Failure(f"The group role {role} does not exist.", "A revision must create it.")
    for role, excess in found:
        if excess:
            yield Failure(f"{role} has {excess}.", "Remove it: it can bypass row security.")


def _allowed(role: str, relation: str) -> frozenset[str]:
    if relation == "alembic_version":  # for assert_compatible
        return frozenset({"SELECT"})
    rules = rules_of(relation, role)
    if any(rule.command == "ALL" for rule in rules):
        return WRITE
    return frozenset({"SELECT"} if rules else ())
