-- What a transaction makes of statements that are harmless alone. README.md explains the labels.

-- two tables changed in one transaction [hazard: several]
-- locks: account ACCESS EXCLUSIVE, item ACCESS EXCLUSIVE
-- several: account
-- from: Explicit Locking: the first lock is held while the second is waited for
BEGIN;
ALTER TABLE account ADD COLUMN nickname text;
ALTER TABLE item ADD COLUMN priority integer;
COMMIT;

-- two tables changed in two transactions [safe]
-- locks: account ACCESS EXCLUSIVE, item ACCESS EXCLUSIVE
-- from: Explicit Locking: each lock ends with its own transaction
ALTER TABLE account ADD COLUMN nickname text;
ALTER TABLE item ADD COLUMN priority integer;

-- one table changed three times in one transaction [safe]
-- locks: account ACCESS EXCLUSIVE
-- from: Explicit Locking: one lock, held for three changes of the catalog
BEGIN;
ALTER TABLE account ADD COLUMN nickname text;
ALTER TABLE account ALTER COLUMN country DROP DEFAULT;
ALTER TABLE account ALTER COLUMN country SET DEFAULT 'GB';
COMMIT;

-- an enum becomes text while another table is locked [hazard: held]
-- locks: account ACCESS EXCLUSIVE, open_item ACCESS EXCLUSIVE, item ACCESS EXCLUSIVE
-- rewrites: item
-- held: account, open_item, item
-- several: account, open_item
-- breaks: yes
-- from: Explicit Locking; ALTER TABLE, Notes: all logins wait for the rewrite of another table
BEGIN;
ALTER TABLE account ADD COLUMN last_seen_at timestamptz;
DROP VIEW open_item;
ALTER TABLE item ALTER COLUMN status DROP DEFAULT;
ALTER TABLE item ALTER COLUMN status TYPE text USING status::text;
COMMIT;

-- a backfill of one table while another is locked [hazard: held]
-- locks: account ACCESS EXCLUSIVE, item ROW EXCLUSIVE
-- writes: item
-- held: account
-- from: Explicit Locking: a lock is kept to the end of the transaction
BEGIN;
ALTER TABLE account ADD COLUMN nickname text;
UPDATE item SET slug = 'item-' || id;
COMMIT;

-- a backfill first, then a short lock [hazard: backfill]
-- locks: account ACCESS EXCLUSIVE, item ROW EXCLUSIVE
-- writes: item
-- from: Explicit Locking: the lock comes last, but the rows stay locked all the time
BEGIN;
UPDATE item SET slug = 'item-' || id;
ALTER TABLE account ADD COLUMN nickname text;
COMMIT;

-- a table locked in advance [hazard: held]
-- locks: audit EXCLUSIVE
-- scans: audit
-- writes: audit
-- held: audit
-- from: LOCK TABLE: EXCLUSIVE keeps writers out until the end of the transaction
BEGIN;
LOCK TABLE audit IN EXCLUSIVE MODE;
UPDATE audit SET code = code + 1;
COMMIT;

-- a table locked for a moment [safe]
-- locks: project ACCESS EXCLUSIVE
-- from: LOCK TABLE: nothing that takes long follows
BEGIN;
LOCK TABLE project IN ACCESS EXCLUSIVE MODE;
ALTER TABLE project ADD COLUMN colour text;
COMMIT;

-- an index in the transaction that adds a column [hazard: held]
-- locks: item ACCESS EXCLUSIVE
-- scans: item
-- held: item
-- from: Explicit Locking; CREATE INDEX: readers wait too, for the ALTER TABLE's lock
BEGIN;
ALTER TABLE item ADD COLUMN due_on date;
CREATE INDEX item_due_idx ON item (due_on);
COMMIT;

-- a small table changed while a big one is indexed [hazard: held]
-- locks: plan ACCESS EXCLUSIVE, item SHARE
-- scans: item
-- held: plan
-- several: plan
-- from: Explicit Locking: readers of the small table wait for the big one's index
BEGIN;
ALTER TABLE plan ADD COLUMN seats integer;
CREATE INDEX item_status_idx ON item (status);
COMMIT;

-- a new table filled from an old one, and the old one left alone [safe]
-- locks: project SHARE ROW EXCLUSIVE
-- from: CREATE TABLE, REFERENCES; INSERT: only the small referenced table is locked, and 100 rows are read
BEGIN;
CREATE TABLE project_member (
  project_id bigint NOT NULL REFERENCES project,
  account_id bigint NOT NULL
);
INSERT INTO project_member SELECT id, account_id FROM project;
COMMIT;

-- a swap of two tables [hazard: several]
-- locks: audit ACCESS EXCLUSIVE, cache ACCESS EXCLUSIVE
-- several: audit
-- breaks: yes
-- from: Explicit Locking; ALTER TABLE, RENAME
BEGIN;
ALTER TABLE audit RENAME TO audit_old;
ALTER TABLE cache RENAME TO audit;
COMMIT;
