-- What only a superuser can make, on top of schema.sql.

CREATE FUNCTION bits_in(cstring) RETURNS bits LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION bits_out(bits) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE TYPE bits (INPUT = bits_in, OUTPUT = bits_out, LIKE = integer, CATEGORY = 'U');
COMMENT ON TYPE bits IS 'An integer under another name';
CREATE TYPE shell;
CREATE OPERATOR FAMILY library.lengths USING btree;
CREATE OPERATOR CLASS library.length_ops FOR TYPE text USING btree FAMILY library.lengths AS
  OPERATOR 1 <, OPERATOR 3 =, OPERATOR 5 >, FUNCTION 1 bttextcmp(text, text);
COMMENT ON OPERATOR CLASS library.length_ops USING btree IS 'By length';
CREATE TEXT SEARCH PARSER letters
  (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
COMMENT ON TEXT SEARCH PARSER letters IS 'As the default one';
CREATE TEXT SEARCH TEMPLATE same (LEXIZE = dsimple_lexize, INIT = dsimple_init);
CREATE FUNCTION other_handler() RETURNS language_handler LANGUAGE c
  AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE FUNCTION other_validator(oid) RETURNS void LANGUAGE c
  AS '$libdir/plpgsql', 'plpgsql_validator';
CREATE TRUSTED LANGUAGE plother HANDLER other_handler VALIDATOR other_validator;
COMMENT ON LANGUAGE plother IS 'PL/pgSQL under another name';
CREATE FUNCTION state_from_sql(internal) RETURNS internal LANGUAGE internal IMMUTABLE AS 'int4in';
CREATE TRANSFORM FOR library.state LANGUAGE plother
  (FROM SQL WITH FUNCTION state_from_sql(internal));
CREATE ACCESS METHOD heap_again TYPE TABLE HANDLER heap_tableam_handler;
CREATE FOREIGN DATA WRAPPER paper OPTIONS (colour 'white');
GRANT USAGE ON FOREIGN DATA WRAPPER paper TO rich_app;
CREATE SERVER archive TYPE 'cellar' VERSION '1' FOREIGN DATA WRAPPER paper OPTIONS (floor '-1');
COMMENT ON SERVER archive IS 'Downstairs';
CREATE USER MAPPING FOR rich_app SERVER archive OPTIONS (name 'app', password 'secret');
CREATE FOREIGN TABLE old_book (title text OPTIONS (place 'A1')) SERVER archive OPTIONS (page '1');
CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER watched ON ddl_command_start WHEN TAG IN ('DROP TABLE', 'DROP VIEW')
  EXECUTE FUNCTION watch();
COMMENT ON EVENT TRIGGER watched IS 'Says what';
CREATE PUBLICATION of_library FOR TABLES IN SCHEMA library;
