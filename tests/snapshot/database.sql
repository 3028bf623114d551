-- What belongs to a database itself and cloning it loses, made by a superuser. :database stands for its name.

ALTER DATABASE :database SET statement_timeout = '5s';
COMMENT ON DATABASE :database IS 'A library';
GRANT CONNECT ON DATABASE :database TO rich_app;
CREATE SUBSCRIPTION mirror CONNECTION 'host=nowhere password=secret' PUBLICATION far
  WITH (connect = false, slot_name = NONE, streaming = off);
COMMENT ON SUBSCRIPTION mirror IS 'From the other house';
