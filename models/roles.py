"""The group roles that hold every privilege, and what PUBLIC is left with: nothing.

Roles belong to the cluster, not to a database, so they are made only when they are missing, and
refused when they could see around row security.
"""

from sqlalchemy import Connection, MetaData, event, text

from .base import metadata

APPLICATION = "todo_app"
"""The application's group role: its user's own rows, by row security."""

BETTER_AUTH = "todo_auth"
"""Better Auth's group role: the four tables that Better Auth keeps."""

# Another database's upgrade may make the role between the look and the creation, and PostgreSQL
# then raises either of two errors.
_ROLE = """
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{role}') THEN
    CREATE ROLE {role} NOLOGIN;
  END IF;
EXCEPTION
  WHEN duplicate_object OR unique_violation THEN NULL;
END
$$
"""

_UNSAFE_ROLE = """
DO $$
BEGIN
  IF EXISTS (
    SELECT FROM pg_catalog.pg_roles AS r
    WHERE r.rolname = '{role}'
      AND (
        r.rolsuper OR r.rolbypassrls OR r.rolcanlogin OR r.rolcreaterole OR r.rolcreatedb
        OR r.rolreplication
        OR EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m WHERE m.member = r.oid)
      )
  ) THEN
    RAISE EXCEPTION 'role {role} has attributes or memberships that it must not have'
      USING HINT = 'It must be NOLOGIN, without attributes, and a member of no role.';
  END IF;
END
$$
"""

# A privilege on the database needs the database's name, which a schema does not know.
_NO_TEMPORARY_TABLES = """
DO $$
BEGIN
  EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
END
$$
"""


@event.listens_for(metadata, "before_create")
def create_roles(_metadata: MetaData, connection: Connection, **_options: object) -> None:
    """Make the group roles where they are missing, and give the schema to them alone.

    Raises:
        sqlalchemy.exc.DBAPIError: a role of that name exists and could see around row security.

    """
    for role in (APPLICATION, BETTER_AUTH):
        connection.execute(text(_ROLE.format(role=role)))
        connection.execute(text(_UNSAFE_ROLE.format(role=role)))
    connection.execute(text(_NO_TEMPORARY_TABLES))
    connection.execute(text("REVOKE ALL ON SCHEMA public FROM PUBLIC"))
    connection.execute(text(f"GRANT USAGE ON SCHEMA public TO {APPLICATION}, {BETTER_AUTH}"))


def open_rows(connection: Connection, table: str, policy: str, role: str, condition: str) -> None:
    """Let a role work on the rows of a table that meet the condition, and nobody on the others."""
    for statement in (
        f'ALTER TABLE "{table}" ENABLE ROW LEVEL SECURITY',
        f'ALTER TABLE "{table}" FORCE ROW LEVEL SECURITY',
        f'CREATE POLICY "{policy}" ON "{table}" TO {role}'
        f" USING ({condition}) WITH CHECK ({condition})",
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON "{table}" TO {role}',
    ):
        connection.execute(text(statement))
