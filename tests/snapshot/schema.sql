-- A schema with every kind of object that a database's owner can make without an extension, for
-- test_snapshot.py; changes.sql changes it, one thing at a time. The roles rich_* exist already.

CREATE SCHEMA library;
COMMENT ON SCHEMA library IS 'Books and who reads them';
GRANT USAGE ON SCHEMA library TO rich_app;

-- Types
CREATE TYPE library.state AS ENUM ('open', 'lent', 'lost');
COMMENT ON TYPE library.state IS 'Where a book is';
CREATE TYPE library.place AS (room text, shelf integer);
COMMENT ON COLUMN library.place.room IS 'Its number';
CREATE TYPE library.other_place AS (room text, shelf integer);
CREATE DOMAIN library.isbn AS text COLLATE "C" DEFAULT '0' NOT NULL
  CONSTRAINT isbn_digits_check CHECK (VALUE ~ '^[0-9X]+$');
COMMENT ON DOMAIN library.isbn IS 'Without hyphens';
COMMENT ON CONSTRAINT isbn_digits_check ON DOMAIN library.isbn IS 'ISO 2108';
GRANT USAGE ON TYPE library.isbn TO rich_app;
CREATE TYPE library.span AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = float8mi);
CREATE COLLATION library.bytes (PROVIDER = libc, LOCALE = 'C');
COMMENT ON COLLATION library.bytes IS 'As memcmp sorts';

-- Routines
CREATE FUNCTION app_user_id() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
  RETURN nullif(current_setting('app.user_id', true), '')::uuid;
COMMENT ON FUNCTION app_user_id() IS 'Who asks';
REVOKE ALL ON FUNCTION app_user_id() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app_user_id() TO rich_app;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
  NEW.updated_at := CURRENT_TIMESTAMP;

  RETURN NEW;
END
$$;
CREATE FUNCTION twice(value integer, OUT result integer) LANGUAGE sql IMMUTABLE STRICT
  AS 'SELECT 2 * value';
CREATE FUNCTION pages(low integer, VARIADIC others integer[] DEFAULT '{1}') RETURNS TABLE (page integer)
  LANGUAGE sql ROWS 7 COST 3 AS 'SELECT unnest(others)';
CREATE PROCEDURE clean(INOUT done boolean DEFAULT false) LANGUAGE plpgsql AS 'BEGIN done := true; END';
CREATE AGGREGATE longest(text) (SFUNC = text_larger, STYPE = text, INITCOND = '', PARALLEL = SAFE);
COMMENT ON AGGREGATE longest(text) IS 'The last one in order';
CREATE FUNCTION same_length(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE
  RETURN length($1) = length($2);
CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = same_length, COMMUTATOR = ===);
COMMENT ON OPERATOR === (text, text) IS 'As long as';
CREATE FUNCTION state_number(library.state) RETURNS integer LANGUAGE sql IMMUTABLE RETURN 1;
CREATE CAST (library.state AS integer) WITH FUNCTION state_number(library.state) AS ASSIGNMENT;
COMMENT ON CAST (library.state AS integer) IS 'Its place';
CREATE CONVERSION latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;

-- Tables
CREATE TABLE reader (
  id uuid DEFAULT gen_random_uuid() PRIMARY KEY,
  email text NOT NULL UNIQUE,
  name text COLLATE library.bytes,
  born date DEFAULT '2000-02-01',
  joined timestamptz DEFAULT '2024-05-06 07:08:09+02',
  patience interval DEFAULT '1 mon 2 days 03:04:05',
  weight double precision DEFAULT '0.123456789',
  fee money DEFAULT 1.5,
  token bytea DEFAULT '\x01ff',
  path text DEFAULT E'a\\b',
  updated_at timestamptz DEFAULT CURRENT_TIMESTAMP NOT NULL,
  "Odd  ""name""" integer,
  CONSTRAINT reader_email_lower_check CHECK (email = lower(email) AND email <> ''),
  CONSTRAINT reader_age_check CHECK (born > '1900-01-01') NO INHERIT
) WITH (fillfactor = 80, toast.autovacuum_enabled = false);
COMMENT ON TABLE reader IS 'A person
who reads';
COMMENT ON COLUMN reader.email IS 'Lower case';
COMMENT ON CONSTRAINT reader_email_lower_check ON reader IS 'Looked up that way';
CREATE TRIGGER reader_touch BEFORE UPDATE OF email, name ON reader
  FOR EACH ROW WHEN (OLD.email IS DISTINCT FROM NEW.email) EXECUTE FUNCTION touch();
COMMENT ON TRIGGER reader_touch ON reader IS 'Says when';
GRANT SELECT, INSERT ON reader TO rich_app;
GRANT UPDATE (name, email), SELECT (token) ON reader TO rich_reader;
GRANT SELECT ON reader TO rich_lender WITH GRANT OPTION;
ALTER TABLE reader ALTER COLUMN name SET STORAGE EXTERNAL, ALTER COLUMN path SET COMPRESSION pglz,
  ALTER COLUMN email SET STATISTICS 200, ALTER COLUMN born SET (n_distinct = 50);

CREATE TABLE book (
  number bigint GENERATED ALWAYS AS IDENTITY (START WITH 10 INCREMENT BY 5),
  serial_number serial,
  reader_id uuid NOT NULL REFERENCES reader ON UPDATE CASCADE ON DELETE CASCADE
    DEFERRABLE INITIALLY DEFERRED,
  isbn library.isbn,
  state library.state DEFAULT 'open',
  place library.place,
  title text NOT NULL,
  title_length integer GENERATED ALWAYS AS (length(title)) STORED,
  lent tstzrange,
  PRIMARY KEY (reader_id, number) INCLUDE (state),
  CONSTRAINT book_isbn_key UNIQUE NULLS NOT DISTINCT (isbn) WITH (fillfactor = 70),
  CONSTRAINT book_lent_excl EXCLUDE USING gist (lent WITH &&) WHERE (state = 'lent')
);
ALTER TABLE book ENABLE ROW LEVEL SECURITY;
ALTER TABLE book FORCE ROW LEVEL SECURITY;
CREATE POLICY book_own ON book TO rich_app
  USING (reader_id = (SELECT app_user_id())) WITH CHECK (reader_id = (SELECT app_user_id()));
COMMENT ON POLICY book_own ON book IS 'Nobody else''s';
CREATE POLICY book_not_lost ON book AS RESTRICTIVE FOR SELECT TO rich_app, rich_reader
  USING (state <> 'lost');
GRANT SELECT, INSERT, UPDATE, DELETE ON book TO rich_app;
CREATE INDEX book_title_idx ON book USING btree (lower(title) text_pattern_ops DESC, state)
  INCLUDE (lent) WITH (deduplicate_items = off) WHERE state <> 'lost';
COMMENT ON INDEX book_title_idx IS 'For the catalogue';
ALTER INDEX book_title_idx ALTER COLUMN 1 SET STATISTICS 300;
CREATE UNIQUE INDEX book_serial_number_idx ON book (serial_number);
CREATE STATISTICS library.book_stats (ndistinct, dependencies) ON state, isbn FROM book;
COMMENT ON STATISTICS library.book_stats IS 'They go together';
ALTER STATISTICS library.book_stats SET STATISTICS 400;
CREATE CONSTRAINT TRIGGER book_checked AFTER INSERT ON book DEFERRABLE
  FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER book_moved AFTER UPDATE ON book REFERENCING OLD TABLE AS was NEW TABLE AS now
  FOR EACH STATEMENT EXECUTE FUNCTION touch();
CREATE RULE book_keep AS ON DELETE TO book WHERE old.state = 'lent' DO INSTEAD NOTHING;
COMMENT ON RULE book_keep ON book IS 'Until it is back';

CREATE TABLE visit (at timestamptz NOT NULL, reader_id uuid, note text) PARTITION BY RANGE (at);
CREATE TABLE visit_2024 PARTITION OF visit FOR VALUES FROM ('2024-01-01 00:00+00') TO ('2025-01-01 00:00+00');
CREATE TABLE visit_rest PARTITION OF visit DEFAULT;
CREATE TABLE visit_2023 (at timestamptz NOT NULL, reader_id uuid, note text);
CREATE INDEX visit_at_idx ON visit (at);
CREATE INDEX visit_note_idx ON ONLY visit (note);
CREATE INDEX visit_2024_note_idx ON visit_2024 (note);
CREATE TRIGGER visit_touch BEFORE INSERT ON visit FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TABLE thing (id integer NOT NULL, CONSTRAINT thing_id_check CHECK (id > 0));
CREATE TABLE lamp (watts integer) INHERITS (thing);
CREATE TABLE chair (id integer NOT NULL, legs integer, CONSTRAINT thing_id_check CHECK (id > 0));
CREATE TABLE scratch_parent (watts integer);
CREATE TABLE shelf OF library.place (PRIMARY KEY (room));
CREATE UNLOGGED TABLE scratch (i integer) WITH (autovacuum_enabled = off);
CREATE SEQUENCE ticket AS integer START 3 INCREMENT 2 MINVALUE 1 MAXVALUE 99 CACHE 4;
COMMENT ON SEQUENCE ticket IS 'Printed';
GRANT USAGE ON SEQUENCE ticket TO rich_app;

-- Views
CREATE VIEW open_book WITH (security_invoker = true, security_barrier = true) AS
  SELECT number, title, state FROM book WHERE state = 'open' WITH LOCAL CHECK OPTION;
COMMENT ON VIEW open_book IS 'To be had';
COMMENT ON COLUMN open_book.title IS 'As printed';
GRANT SELECT ON open_book TO rich_app;
ALTER VIEW open_book ALTER COLUMN state SET DEFAULT 'open';
CREATE MATERIALIZED VIEW book_count WITH (fillfactor = 90) AS
  SELECT state, count(*) AS books FROM book GROUP BY state WITH NO DATA;
CREATE UNIQUE INDEX book_count_state_idx ON book_count (state);
COMMENT ON MATERIALIZED VIEW book_count IS 'Once a night';

-- Text search
CREATE TEXT SEARCH DICTIONARY plain (TEMPLATE = simple, STOPWORDS = english);
CREATE TEXT SEARCH CONFIGURATION library.words (PARSER = "default");
ALTER TEXT SEARCH CONFIGURATION library.words ADD MAPPING FOR asciiword, word WITH plain, simple;
COMMENT ON TEXT SEARCH CONFIGURATION library.words IS 'Whole words';

-- Replication
CREATE PUBLICATION books FOR TABLE book (number, reader_id, title) WHERE (number > 0), TABLE thing
  WITH (publish = 'insert, update', publish_via_partition_root = true);
COMMENT ON PUBLICATION books IS 'For the search engine';

-- Privileges
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA library GRANT SELECT ON TABLES TO rich_reader;
SELECT lo_create(4711);
COMMENT ON LARGE OBJECT 4711 IS 'A cover';
GRANT SELECT ON LARGE OBJECT 4711 TO rich_app;
