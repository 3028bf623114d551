"""The tables by owner, and the privileges of the group roles, read from the catalogs."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from schema.roles import APPLICATION, BETTER_AUTH
from schema.rows.tables import OWN_SCHEMAS

WRITE = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
PRIVILEGES = (*sorted(WRITE), "TRUNCATE", "REFERENCES", "TRIGGER")

IDENTITY = "(user_id = ( SELECT app_user_id() AS app_user_id))"
"""The only condition that a policy of an owned table may have, as PostgreSQL prints it."""

TABLES = f"""
SELECT
  c.oid,
  CASE n.nspname WHEN 'public' THEN c.relname ELSE n.nspname || '.' || c.relname END AS name,
  c.relrowsecurity AND c.relforcerowsecurity AS secured,
  EXISTS (
    SELECT FROM pg_attribute AS a
    WHERE a.attrelid = c.oid AND a.attname = 'user_id' AND NOT a.attisdropped
  ) AS has_user,
  coalesce((
    SELECT a.attname = 'user_id'
    FROM pg_constraint AS k
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
    WHERE k.conrelid = c.oid AND k.contype = 'p'
  ), false) AS key_leads_with_user,
  -- A cascading key to the user, or with user_id to an owned parent.
  EXISTS (
    SELECT FROM pg_constraint AS k
    CROSS JOIN unnest(k.conkey, k.confkey) AS pair (child, parent)
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = pair.child
    JOIN pg_attribute AS p ON p.attrelid = k.confrelid AND p.attnum = pair.parent
    WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.convalidated AND k.confdeltype = 'c'
      AND a.attname = 'user_id' AND a.attnotnull AND (
        k.confrelid = to_regclass('public."user"') AND p.attname = 'id'
        OR k.confrelid <> c.oid AND p.attname = 'user_id'
      )
  ) AS references_user,
  ARRAY(
    SELECT k.conname::text FROM pg_constraint AS k
    WHERE k.conrelid = c.oid AND k.contype = 'f' AND EXISTS (
      SELECT FROM pg_attribute AS p
      WHERE p.attrelid = k.confrelid AND p.attname = 'user_id' AND NOT p.attisdropped
    ) AND NOT EXISTS (
      SELECT FROM unnest(k.conkey, k.confkey) AS pair (child, parent)
      JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = pair.child
      JOIN pg_attribute AS p ON p.attrelid = k.confrelid AND p.attnum = pair.parent
      WHERE a.attname = 'user_id' AND p.attname = 'user_id'
    )
  ) AS ownerless_keys,
  ARRAY(
    SELECT p.polname::text FROM pg_policy AS p
    WHERE p.polrelid = c.oid AND p.polpermissive AND (
      coalesce(pg_get_expr(p.polqual, c.oid), :identity) <> :identity
      OR coalesce(pg_get_expr(p.polwithcheck, c.oid), :identity) <> :identity
    )
  ) AS other_policies,
  EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = c.oid) AS has_policy
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND {OWN_SCHEMAS}
ORDER BY 2
"""

# Effective privileges: granted to the role, to PUBLIC, or through a membership.
RELATION_PRIVILEGES = f"""
SELECT c.relname, c.relkind::text, r.rolname, array_agg(p.name ORDER BY p.name)
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN (SELECT rolname FROM pg_roles WHERE rolname IN ('{APPLICATION}', '{BETTER_AUTH}')) AS r
CROSS JOIN unnest(CAST(:privileges AS text[])) AS p (name)
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {OWN_SCHEMAS} AND (
  has_table_privilege(r.rolname, c.oid, p.name)
  OR p.name IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
    AND has_any_column_privilege(r.rolname, c.oid, p.name)
)
GROUP BY 1, 2, 3
ORDER BY 1, 3
"""


def role_privileges(connection: Connection) -> Sequence[Any]:
    """List the group roles' privileges: (relation, kind, role, privileges)."""
    version = connection.execute(text("SHOW server_version_num")).scalar_one()
    known = [*PRIVILEGES, *(["MAINTAIN"] if int(version) >= 170000 else [])]
    return connection.execute(text(RELATION_PRIVILEGES), {"privileges": known}).all()
