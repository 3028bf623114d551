-- What is no difference of the schema: the snapshot must stay the same. Written like changes.sql.

-- rows
INSERT INTO reader (email) VALUES ('a@example.org');
-- a sequence's position
SELECT nextval('ticket');
-- a materialised view's rows
REFRESH MATERIALIZED VIEW book_count;
-- planner statistics
ANALYZE reader;
-- the order of columns
ALTER TABLE reader DROP COLUMN weight;
ALTER TABLE reader ADD COLUMN weight double precision DEFAULT '0.123456789';
-- the order of grants
REVOKE SELECT, INSERT ON reader FROM rich_app;
GRANT INSERT ON reader TO rich_app;
GRANT SELECT ON reader TO rich_app;
-- the order of a policy's roles
ALTER POLICY book_not_lost ON book TO rich_reader, rich_app;
-- the order of storage parameters
ALTER VIEW open_book RESET (security_invoker);
ALTER VIEW open_book SET (security_invoker = true);
-- default privileges spelled out
GRANT ALL ON TABLE thing TO :owner;
GRANT EXECUTE ON FUNCTION twice TO PUBLIC;
REVOKE EXECUTE ON FUNCTION twice FROM rich_app;
GRANT USAGE ON TYPE library.state TO PUBLIC;
-- the same function again
CREATE OR REPLACE FUNCTION twice(value integer, OUT result integer) LANGUAGE sql IMMUTABLE STRICT
  AS 'SELECT 2 * value';
-- a trigger made again
DROP TRIGGER reader_touch ON reader;
CREATE TRIGGER reader_touch BEFORE UPDATE OF email, name ON reader
  FOR EACH ROW WHEN (OLD.email IS DISTINCT FROM NEW.email) EXECUTE FUNCTION touch();
COMMENT ON TRIGGER reader_touch ON reader IS 'Says when';
-- the name of a NOT NULL constraint [since 18]
ALTER TABLE reader RENAME CONSTRAINT reader_email_not_null TO needed;
-- Alembic's own table
CREATE TABLE alembic_version (version_num varchar(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY);
COMMENT ON TABLE alembic_version IS 'Not ours';
GRANT SELECT ON alembic_version TO rich_stranger;
-- the platform's schemas [superuser]
CREATE SCHEMA neon;
CREATE SCHEMA neon_migration;
CREATE SCHEMA auth;
CREATE TABLE neon_migration.migration_id (id integer PRIMARY KEY);
CREATE TABLE auth.users (id integer PRIMARY KEY);
CREATE VIEW neon.users AS SELECT * FROM auth.users;
CREATE FUNCTION auth.one() RETURNS integer LANGUAGE sql RETURN 1;
CREATE TYPE auth.kind AS ENUM ('a');
CREATE OPERATOR auth.=== (LEFTARG = integer, RIGHTARG = integer, FUNCTION = int4eq);
CREATE TEXT SEARCH TEMPLATE auth.same (LEXIZE = dsimple_lexize, INIT = dsimple_init);
CREATE TEXT SEARCH DICTIONARY auth.dictionary (TEMPLATE = simple);
GRANT USAGE ON SCHEMA auth TO rich_stranger;
GRANT SELECT ON auth.users TO rich_stranger;
ALTER DEFAULT PRIVILEGES IN SCHEMA auth GRANT SELECT ON TABLES TO rich_stranger;
-- the platform's extension in its schema [superuser]
CREATE SCHEMA neon;
DO $$ BEGIN EXECUTE (SELECT 'CREATE EXTENSION ' || name || ' SCHEMA neon'
  FROM pg_available_extensions WHERE name IN ('vector', 'citext') ORDER BY name DESC LIMIT 1); END $$;
-- the schema of the platform's Better Auth [superuser]
CREATE ROLE neon_auth;
GRANT neon_auth TO :owner;
CREATE SCHEMA neon_auth AUTHORIZATION neon_auth;
SET LOCAL ROLE neon_auth;
CREATE TABLE neon_auth."user" (id uuid PRIMARY KEY);
CREATE INDEX user_id ON neon_auth."user" (id);
RESET ROLE;
-- the platform's role no longer granted [superuser]
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM neon_superuser;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM neon_superuser;
ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON TABLES FROM neon_superuser;
ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON SEQUENCES FROM neon_superuser;
-- the platform's role granted more [superuser]
GRANT ALL ON ALL TABLES IN SCHEMA library, public TO neon_superuser WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO neon_superuser WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE :owner GRANT ALL ON TABLES TO neon_superuser;
-- who owns public by which name [superuser]
ALTER SCHEMA public OWNER TO pg_database_owner;
-- the owner's own attributes [superuser]
ALTER ROLE :owner NOCREATEDB CONNECTION LIMIT 9;
ALTER ROLE :owner SET work_mem = '8MB';
GRANT rich_other TO :owner;
-- a role that nothing names
ALTER ROLE rich_stranger LOGIN;
ALTER ROLE rich_stranger SET work_mem = '8MB';
GRANT rich_other TO rich_stranger;
-- a login that joins a group role
GRANT rich_app TO rich_stranger;
-- a temporary table in the way
CREATE TEMPORARY TABLE reader (id integer);
CREATE TEMPORARY VIEW book AS SELECT 1;
