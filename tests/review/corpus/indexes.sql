-- Indexes. README.md explains the labels.

-- create an index [hazard: scan]
-- locks: item SHARE
-- scans: item
-- from: CREATE INDEX, Building Indexes Concurrently: a plain build keeps writers out until it is done
CREATE INDEX item_status_idx ON item (status);

-- create an index concurrently [safe]
-- locks: item SHARE UPDATE EXCLUSIVE
-- invalid: if cancelled
-- from: CREATE INDEX, Building Indexes Concurrently: writers go on; a failure leaves an invalid index
CREATE INDEX CONCURRENTLY item_status_idx ON item (status);

-- create a unique index [hazard: scan]
-- locks: audit SHARE
-- scans: audit
-- from: CREATE INDEX, Building Indexes Concurrently
CREATE UNIQUE INDEX audit_account_idx ON audit (account_id);

-- create a unique index concurrently over duplicates [hazard: fails]
-- fails: yes
-- invalid: left
-- from: CREATE INDEX, Building Indexes Concurrently: duplicates leave an invalid index
CREATE UNIQUE INDEX CONCURRENTLY audit_action_key ON audit (action);

-- create an index on a new table [safe]
-- from: CREATE TABLE: no table existed before
BEGIN;
CREATE TABLE label (id bigint PRIMARY KEY, name text NOT NULL);
CREATE INDEX label_name_idx ON label (name);
COMMIT;

-- create an index on a small table [safe]
-- locks: archive.item_2019 SHARE
-- from: CREATE INDEX: keeps writers out while 50 rows are read
CREATE INDEX item_2019_title_idx ON archive.item_2019 (title);

-- create an index on a partitioned table [hazard: scan]
-- locks: event SHARE, event_2024 SHARE, event_2025 SHARE
-- scans: event_2024, event_2025
-- from: CREATE INDEX, Description: recurses to the partitions; CONCURRENTLY is not supported there
CREATE INDEX event_kind_idx ON event (kind);

-- create an index on a partitioned table, one partition after the other [safe]
-- locks: event SHARE, event_2024 SHARE UPDATE EXCLUSIVE, event_2025 SHARE UPDATE EXCLUSIVE
-- invalid: if cancelled
-- from: CREATE INDEX, Notes; Table Partitioning, Partition Maintenance: ON ONLY, then attach
CREATE INDEX event_kind_idx ON ONLY event (kind);
CREATE INDEX CONCURRENTLY event_2024_kind_idx ON event_2024 (kind);
CREATE INDEX CONCURRENTLY event_2025_kind_idx ON event_2025 (kind);
ALTER INDEX event_kind_idx ATTACH PARTITION event_2024_kind_idx;
ALTER INDEX event_kind_idx ATTACH PARTITION event_2025_kind_idx;

-- an index on a partitioned table that stays invalid [hazard: invalid]
-- locks: event SHARE, event_2024 SHARE UPDATE EXCLUSIVE
-- invalid: left
-- from: CREATE INDEX, Notes: invalid until every partition has its index
CREATE INDEX event_kind_idx ON ONLY event (kind);
CREATE INDEX CONCURRENTLY event_2024_kind_idx ON event_2024 (kind);
ALTER INDEX event_kind_idx ATTACH PARTITION event_2024_kind_idx;

-- drop an index [safe]
-- locks: item ACCESS EXCLUSIVE
-- from: DROP INDEX, CONCURRENTLY: a plain drop takes ACCESS EXCLUSIVE, for a moment
DROP INDEX item_number_idx;

-- drop an index concurrently [safe]
-- locks: item SHARE UPDATE EXCLUSIVE
-- invalid: if cancelled
-- from: DROP INDEX, CONCURRENTLY: nobody is locked out
DROP INDEX CONCURRENTLY item_number_idx;

-- reindex a table [hazard: scan]
-- locks: item SHARE, item_pkey ACCESS EXCLUSIVE, item_account_idx ACCESS EXCLUSIVE, item_number_idx ACCESS EXCLUSIVE
-- scans: item
-- from: REINDEX, Notes: keeps writers out, and readers that would use the index
REINDEX TABLE item;

-- reindex concurrently [safe]
-- locks: audit SHARE UPDATE EXCLUSIVE
-- invalid: if cancelled
-- from: REINDEX, Rebuilding Indexes Concurrently
REINDEX INDEX CONCURRENTLY audit_action_idx;

-- rename an index [safe]
-- locks: item_number_idx SHARE UPDATE EXCLUSIVE
-- from: ALTER INDEX, RENAME: SHARE UPDATE EXCLUSIVE
ALTER INDEX item_number_idx RENAME TO item_by_number;
