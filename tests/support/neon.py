"""What Neon adds to a database, made as Neon makes it: by a superuser, in schemas of its own.

The shape is that of production databases. Roles belong to the server: use one of the test's own.
"""

from sqlalchemy import URL

from schema.postgres.embedded import OWNER
from tests.support.alembic_process import execute

ROLES = (
    "CREATE ROLE anonymous NOLOGIN",
    "CREATE ROLE authenticated NOLOGIN",
    "CREATE ROLE authenticator LOGIN NOINHERIT",
    "GRANT anonymous, authenticated TO authenticator WITH INHERIT FALSE, SET TRUE",
    "CREATE ROLE neon_auth LOGIN NOINHERIT",
    f"GRANT anonymous, authenticated, neon_auth TO {OWNER} WITH INHERIT TRUE, SET TRUE",
)
"""Once for each server."""

COMPUTE = (
    "CREATE SCHEMA neon",
    "CREATE FUNCTION neon.status() RETURNS text LANGUAGE sql SECURITY DEFINER RETURN 'active'",
    "CREATE SCHEMA neon_migration",
    "CREATE TABLE neon_migration.migration_id (id integer PRIMARY KEY)",
)

AUTH = (
    "CREATE SCHEMA neon_auth AUTHORIZATION neon_auth",
    'CREATE TABLE neon_auth."user" (id uuid PRIMARY KEY, name text, email text NOT NULL)',
    "CREATE TABLE neon_auth.session (id uuid PRIMARY KEY, token text NOT NULL)",
    'ALTER TABLE neon_auth."user" OWNER TO neon_auth',
    "ALTER TABLE neon_auth.session OWNER TO neon_auth",
    "GRANT USAGE ON SCHEMA neon_auth TO authenticated",
)

SESSION_JWT = (
    "CREATE SCHEMA auth",
    """
    CREATE FUNCTION auth.session() RETURNS jsonb LANGUAGE sql STABLE
    RETURN current_setting('request.jwt.claims', true)::jsonb
    """,
    "CREATE FUNCTION auth.user_id() RETURNS text LANGUAGE sql STABLE"
    " RETURN auth.session() ->> 'sub'",
    "CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE RETURN auth.user_id()::uuid",
)

DATA_API = (
    "GRANT USAGE ON SCHEMA public TO anonymous, authenticated",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO authenticated",
    f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} IN SCHEMA public"
    " GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO authenticated",
)

_EXTENSION = """
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
SELECT pg_nextoid('pg_extension', 'oid', 'pg_extension_oid_index'), '{name}', n.nspowner, n.oid,
  false, '1.0'
FROM pg_namespace AS n WHERE n.nspname = '{schema}'
"""

_MEMBERS = """
INSERT INTO pg_depend (classid, objid, objsubid, refclassid, refobjid, refobjsubid, deptype)
SELECT 'pg_proc'::regclass, p.oid, 0, 'pg_extension'::regclass, e.oid, 0, 'e'
FROM pg_extension AS e JOIN pg_proc AS p ON p.pronamespace = e.extnamespace
WHERE e.extname = '{name}'
"""


def make_extension(superuser: URL, name: str, schema: str) -> None:
    """Make an extension of the functions in a schema; the servers of the tests have no such one."""
    execute(superuser, _EXTENSION.format(name=name, schema=schema), _MEMBERS.format(name=name))


def settle(superuser: URL, *, data_api: bool = False) -> None:
    """Make what a project with Neon Auth has, and with `data_api` also what that makes."""
    execute(superuser, *COMPUTE, *AUTH)
    make_extension(superuser, "neon", "neon")
    if data_api:
        execute(superuser, *SESSION_JWT, *DATA_API)
        make_extension(superuser, "pg_session_jwt", "auth")
