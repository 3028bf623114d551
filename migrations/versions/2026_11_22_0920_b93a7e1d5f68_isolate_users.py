"""Isolate users from each other.

WHY: a forgotten WHERE, a wrong join or another user's id in a URL must not cross users. The
database enforces it: the application acts as a member of `todo_app`, says once per transaction
whom it acts for (`app.user_id`), and row security shows it that user's rows and no others.
Better Auth acts as a member of `todo_auth`, on its own four tables. PUBLIC is left with nothing;
without TEMPORARY on the database, no session can hide a table behind a temporary one.

Roles belong to the cluster: they are made when missing, refused when they could see around row
security, and never dropped, because another database may grant to them.
"""

from alembic import op

revision = "b93a7e1d5f68"
down_revision = "8e5d2f6c3b04"
branch_labels = None
depends_on = None

GROUP_ROLES = ("todo_app", "todo_auth")
BETTER_AUTH_TABLES = ("user", "session", "account", "verification")


def create_role(role: str) -> None:
    # Another database's upgrade may make the role between the look and the creation, and
    # PostgreSQL then raises either of two errors.
    op.execute(f"""
        DO $$
        BEGIN
          IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{role}') THEN
            CREATE ROLE {role} NOLOGIN;
          END IF;
        EXCEPTION
          WHEN duplicate_object OR unique_violation THEN NULL;
        END
        $$
    """)
    op.execute(f"""
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
    """)


def database_privilege(statement: str) -> None:
    # The statement needs the database's name, which a revision does not know.
    op.execute(f"""
        DO $$
        BEGIN
          EXECUTE format('{statement}', current_database());
        END
        $$
    """)


def upgrade() -> None:
    for role in GROUP_ROLES:
        create_role(role)
    database_privilege("REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC")
    op.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    op.execute("GRANT USAGE ON SCHEMA public TO todo_app, todo_auth")

    # Unset and empty both mean nobody: a setting that a finished transaction made reverts to the
    # empty string, not to NULL.
    op.execute("""
        CREATE FUNCTION app_user_id() RETURNS uuid
        LANGUAGE sql STABLE PARALLEL SAFE
        RETURN nullif(current_setting('app.user_id', true), '')::uuid
    """)
    op.execute("""
        COMMENT ON FUNCTION app_user_id() IS
        'The user whom this transaction acts for (setting app.user_id); NULL is nobody'
    """)
    op.execute("REVOKE ALL ON FUNCTION app_user_id() FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION app_user_id() TO todo_app")
    op.execute("GRANT EXECUTE ON FUNCTION uuid_v7() TO todo_app")

    for table in (*BETTER_AUTH_TABLES, "todo"):
        op.execute(f'ALTER TABLE "{table}" ENABLE ROW LEVEL SECURITY')
        op.execute(f'ALTER TABLE "{table}" FORCE ROW LEVEL SECURITY')

    for table in BETTER_AUTH_TABLES:
        op.execute(f"""
            CREATE POLICY "{table}_auth" ON "{table}" TO todo_auth
            USING (true) WITH CHECK (true)
        """)
        op.execute(f'GRANT SELECT, INSERT, UPDATE, DELETE ON "{table}" TO todo_auth')

    # The sub-select is evaluated once for a statement, not once for a row.
    op.execute("""
        CREATE POLICY user_self ON "user" FOR SELECT TO todo_app
        USING (id = (SELECT app_user_id()))
    """)
    op.execute('GRANT SELECT ON "user" TO todo_app')
    op.execute("""
        CREATE POLICY todo_owner ON todo TO todo_app
        USING (user_id = (SELECT app_user_id()))
        WITH CHECK (user_id = (SELECT app_user_id()))
    """)
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON todo TO todo_app")


def downgrade() -> None:
    op.execute("REVOKE ALL ON todo FROM todo_app")
    op.execute("DROP POLICY todo_owner ON todo")
    op.execute('REVOKE ALL ON "user" FROM todo_app')
    op.execute('DROP POLICY user_self ON "user"')
    for table in BETTER_AUTH_TABLES:
        op.execute(f'REVOKE ALL ON "{table}" FROM todo_auth')
        op.execute(f'DROP POLICY "{table}_auth" ON "{table}"')
    for table in (*BETTER_AUTH_TABLES, "todo"):
        op.execute(f'ALTER TABLE "{table}" NO FORCE ROW LEVEL SECURITY')
        op.execute(f'ALTER TABLE "{table}" DISABLE ROW LEVEL SECURITY')
    op.execute("REVOKE ALL ON FUNCTION uuid_v7() FROM todo_app")
    op.execute("DROP FUNCTION app_user_id()")
    op.execute("REVOKE ALL ON SCHEMA public FROM todo_app, todo_auth")
    op.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
    database_privilege("GRANT TEMPORARY ON DATABASE %I TO PUBLIC")
