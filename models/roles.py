"""The group roles, which have all privileges; PUBLIC has none.

Roles belong to the cluster, not to a database: they are created if missing, and rejected if they
can bypass row security.
"""

from sqlalchemy import Connection, MetaData, event, text

from .base import metadata

APPLICATION = "todo_app"
"""The application's group role: row security limits it to the acting user's rows."""

BETTER_AUTH = "todo_auth"
"""Better Auth's group role: all rows of its four tables."""

# Another database's upgrade may create the role at the same time; PostgreSQL then raises one of
# these two errors.
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

# REVOKE needs the database's name, which is not known here.
_NO_TEMPORARY_TABLES = """
DO $$
BEGIN
  EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
END
$$
"""


@event.listens_for(metadata, "before_create")
def create_roles(_metadata: MetaData, connection: Connection, **_options: object) -> None:
    """Create the missing group roles, and grant the schema only to them.

    Raises:
        sqlalchemy.exc.DBAPIError: a role of that name exists and can bypass row security.

    """
    for role in (APPLICATION, BETTER_AUTH):
        connection.execute(text(_ROLE.format(role=role)))
        connection.execute(text(_UNSAFE_ROLE.format(role=role)))
    connection.execute(text(_NO_TEMPORARY_TABLES))
    connection.execute(text("REVOKE ALL ON SCHEMA public FROM PUBLIC"))
    connection.execute(text(f"GRANT USAGE ON SCHEMA public TO {APPLICATION}, {BETTER_AUTH}"))
