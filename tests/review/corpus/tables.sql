-- Tables, partitions, sequences and maintenance. README.md explains the labels.

-- create a table [safe]
-- from: CREATE TABLE: no table existed before
CREATE TABLE tag (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE
);

-- create a table that refers to another [safe]
-- locks: account SHARE ROW EXCLUSIVE
-- from: CREATE TABLE, REFERENCES: SHARE ROW EXCLUSIVE on the referenced table, with nothing to check
CREATE TABLE invoice (
  id bigint PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES account ON DELETE CASCADE
);

-- drop a table [hazard: loses]
-- locks: project ACCESS EXCLUSIVE, account ACCESS EXCLUSIVE
-- loses: project
-- breaks: yes
-- reversible: no
-- from: DROP TABLE: the rows go; the referenced table loses its triggers
DROP TABLE project;

-- drop a table of a tool [hazard: loses]
-- locks: cache ACCESS EXCLUSIVE
-- loses: cache
-- reversible: no
-- from: DROP TABLE
DROP TABLE IF EXISTS cache;

-- drop a schema with cascade [hazard: loses]
-- locks: archive.item_2019 ACCESS EXCLUSIVE
-- loses: archive.item_2019
-- reversible: no
-- from: DROP SCHEMA, CASCADE: everything in it goes
DROP SCHEMA archive CASCADE;

-- truncate [hazard: loses]
-- locks: cache ACCESS EXCLUSIVE
-- loses: cache rows
-- reversible: no
-- from: TRUNCATE, Notes: ACCESS EXCLUSIVE; every row goes
TRUNCATE cache;

-- rename a table [hazard: breaks]
-- locks: audit ACCESS EXCLUSIVE
-- breaks: yes
-- from: ALTER TABLE, RENAME: the old name is gone
ALTER TABLE audit RENAME TO audit_log;

-- rename a table and leave a view [safe]
-- locks: audit ACCESS EXCLUSIVE
-- from: CREATE VIEW, Updatable Views: a simple view takes inserts, updates and deletes
BEGIN;
ALTER TABLE audit RENAME TO audit_log;
CREATE VIEW audit WITH (security_invoker) AS SELECT * FROM audit_log;
GRANT SELECT, INSERT, UPDATE, DELETE ON audit TO review_app;
GRANT SELECT ON audit TO review_support;
COMMIT;

-- move a table to another schema [hazard: breaks]
-- locks: project ACCESS EXCLUSIVE
-- access: narrowed
-- breaks: yes
-- from: ALTER TABLE, SET SCHEMA; Privileges: the application may not use that schema
ALTER TABLE project SET SCHEMA archive;

-- vacuum full [hazard: rewrite]
-- locks: audit ACCESS EXCLUSIVE
-- rewrites: audit
-- from: VACUUM, FULL: a new copy under ACCESS EXCLUSIVE
VACUUM FULL audit;

-- vacuum and analyze [safe]
-- locks: audit SHARE UPDATE EXCLUSIVE
-- from: VACUUM, Description: readers and writers go on
VACUUM (ANALYZE) audit;

-- cluster [hazard: rewrite]
-- locks: audit ACCESS EXCLUSIVE
-- rewrites: audit
-- from: CLUSTER, Notes: ACCESS EXCLUSIVE
CLUSTER audit USING audit_action_idx;

-- set logged [hazard: rewrite]
-- locks: cache ACCESS EXCLUSIVE
-- rewrites: cache
-- from: ALTER TABLE, SET LOGGED: copies the table
ALTER TABLE cache SET LOGGED;

-- set unlogged [hazard: rewrite]
-- locks: audit ACCESS EXCLUSIVE
-- rewrites: audit
-- from: ALTER TABLE, SET UNLOGGED: copies the table; a crash would empty it
ALTER TABLE audit SET UNLOGGED;

-- attach a partition [hazard: scan]
-- locks: event SHARE UPDATE EXCLUSIVE, event_2023 ACCESS EXCLUSIVE
-- scans: event_2023
-- from: ALTER TABLE, ATTACH PARTITION: the table is scanned unless a CHECK shows that its rows fit
ALTER TABLE event ATTACH PARTITION event_2023 FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');

-- attach a partition behind a validated check [safe]
-- locks: event SHARE UPDATE EXCLUSIVE, event_2023 ACCESS EXCLUSIVE
-- from: ALTER TABLE, ATTACH PARTITION; Table Partitioning, Partition Maintenance: a matching CHECK saves the scan
ALTER TABLE event_2023 ADD CONSTRAINT event_2023_year
  CHECK (happened_on >= '2023-01-01' AND happened_on < '2024-01-01') NOT VALID;
ALTER TABLE event_2023 VALIDATE CONSTRAINT event_2023_year;
ALTER TABLE event ATTACH PARTITION event_2023 FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');

-- create a partition [safe]
-- locks: event ACCESS EXCLUSIVE
-- from: CREATE TABLE, PARTITION OF: ACCESS EXCLUSIVE on the parent, for a moment
CREATE TABLE event_2026 PARTITION OF event FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');

-- create a partition by attaching it [safe]
-- locks: event SHARE UPDATE EXCLUSIVE
-- from: CREATE TABLE, PARTITION OF; ALTER TABLE, ATTACH PARTITION: the weaker lock on the parent
BEGIN;
CREATE TABLE event_2026 (LIKE event INCLUDING ALL);
ALTER TABLE event ATTACH PARTITION event_2026 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
COMMIT;

-- detach a partition [safe]
-- locks: event ACCESS EXCLUSIVE, event_2024 ACCESS EXCLUSIVE
-- from: ALTER TABLE, DETACH PARTITION: ACCESS EXCLUSIVE, for a moment
ALTER TABLE event DETACH PARTITION event_2024;

-- detach a partition concurrently [safe]
-- locks: event SHARE UPDATE EXCLUSIVE, event_2024 ACCESS EXCLUSIVE
-- from: ALTER TABLE, DETACH PARTITION: SHARE UPDATE EXCLUSIVE on the parent, ACCESS EXCLUSIVE on the partition in the end
ALTER TABLE event DETACH PARTITION event_2024 CONCURRENTLY;

-- drop a partition [hazard: loses]
-- locks: event ACCESS EXCLUSIVE, event_2024 ACCESS EXCLUSIVE
-- loses: event_2024
-- reversible: no
-- from: Table Partitioning, Partition Maintenance: needs ACCESS EXCLUSIVE on the parent
DROP TABLE event_2024;

-- a sequence for later [safe]
-- from: CREATE SEQUENCE: touches no table
CREATE SEQUENCE invoice_number START 1000;

-- a sequence: another increment [safe]
-- locks: audit_id_seq SHARE ROW EXCLUSIVE
-- from: ALTER SEQUENCE, Notes: it blocks concurrent nextval calls, for a moment
ALTER SEQUENCE audit_id_seq INCREMENT 10 CACHE 10;

-- refresh a materialised view [hazard: rewrite]
-- locks: action_count ACCESS EXCLUSIVE
-- rewrites: action_count
-- from: REFRESH MATERIALIZED VIEW, CONCURRENTLY: without it, readers wait until it is done
REFRESH MATERIALIZED VIEW action_count;

-- refresh a materialised view concurrently [safe]
-- locks: action_count EXCLUSIVE
-- from: REFRESH MATERIALIZED VIEW, CONCURRENTLY: readers go on
REFRESH MATERIALIZED VIEW CONCURRENTLY action_count;
