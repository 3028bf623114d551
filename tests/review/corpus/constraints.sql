-- Constraints. README.md explains the labels.

-- add a check [hazard: scan]
-- locks: item ACCESS EXCLUSIVE
-- scans: item
-- from: ALTER TABLE, ADD table_constraint: existing rows are checked in a scan
ALTER TABLE item ADD CONSTRAINT item_price_positive CHECK (price >= 0);

-- add a check, validate it later [safe]
-- locks: item ACCESS EXCLUSIVE
-- from: ALTER TABLE, Notes: NOT VALID skips the scan, VALIDATE takes SHARE UPDATE EXCLUSIVE
ALTER TABLE item ADD CONSTRAINT item_price_positive CHECK (price >= 0) NOT VALID;
ALTER TABLE item VALIDATE CONSTRAINT item_price_positive;

-- add a check and validate it in one transaction [hazard: held]
-- locks: item ACCESS EXCLUSIVE
-- scans: item
-- held: item
-- from: ALTER TABLE, Notes; Explicit Locking: a lock is kept to the end of the transaction
BEGIN;
ALTER TABLE item ADD CONSTRAINT item_price_positive CHECK (price >= 0) NOT VALID;
ALTER TABLE item VALIDATE CONSTRAINT item_price_positive;
COMMIT;

-- add a check that rows violate [hazard: fails]
-- fails: yes
-- from: ALTER TABLE, ADD table_constraint: a row that violates it is an error
ALTER TABLE item ADD CONSTRAINT item_number_small CHECK (number < 10000);

-- drop a check [safe]
-- locks: audit ACCESS EXCLUSIVE
-- from: ALTER TABLE, DROP CONSTRAINT: the catalog only
ALTER TABLE audit ADD CONSTRAINT audit_code_small CHECK (code < 100000) NOT VALID;
ALTER TABLE audit DROP CONSTRAINT audit_code_small;

-- add a foreign key [hazard: scan]
-- locks: audit SHARE ROW EXCLUSIVE, account SHARE ROW EXCLUSIVE
-- scans: audit, account
-- from: ALTER TABLE, ADD table_constraint: a foreign key locks both tables; existing rows are checked, which joins them
ALTER TABLE audit ADD CONSTRAINT audit_account_fkey FOREIGN KEY (account_id) REFERENCES account;

-- add a foreign key, validate it later [safe]
-- locks: audit SHARE ROW EXCLUSIVE, account SHARE ROW EXCLUSIVE
-- from: ALTER TABLE, Notes: VALIDATE of a foreign key takes ROW SHARE on the referenced table
ALTER TABLE audit
  ADD CONSTRAINT audit_account_fkey FOREIGN KEY (account_id) REFERENCES account NOT VALID;
ALTER TABLE audit VALIDATE CONSTRAINT audit_account_fkey;

-- add a foreign key and validate it in one transaction [hazard: held]
-- locks: audit SHARE ROW EXCLUSIVE, account SHARE ROW EXCLUSIVE
-- scans: audit, account
-- held: audit, account
-- from: ALTER TABLE, Notes; Explicit Locking: a lock is kept to the end of the transaction
BEGIN;
ALTER TABLE audit
  ADD CONSTRAINT audit_account_fkey FOREIGN KEY (account_id) REFERENCES account NOT VALID;
ALTER TABLE audit VALIDATE CONSTRAINT audit_account_fkey;
COMMIT;

-- drop a foreign key [safe]
-- locks: item ACCESS EXCLUSIVE, account ACCESS EXCLUSIVE
-- from: ALTER TABLE, DROP CONSTRAINT; the referenced table loses its triggers, which takes the same lock
ALTER TABLE item DROP CONSTRAINT item_account_fkey;

-- a new column that refers to a table [safe]
-- locks: item ACCESS EXCLUSIVE, plan SHARE ROW EXCLUSIVE
-- from: ALTER TABLE, ADD COLUMN: the column is new and NULL, so there is nothing to check
ALTER TABLE item ADD COLUMN plan_id integer REFERENCES plan;

-- add a unique constraint [hazard: scan]
-- locks: audit ACCESS EXCLUSIVE
-- scans: audit
-- from: ALTER TABLE, ADD table_constraint: builds an index under ACCESS EXCLUSIVE
ALTER TABLE audit ADD CONSTRAINT audit_account_key UNIQUE (account_id);

-- add a unique constraint with an index built before [safe]
-- locks: audit ACCESS EXCLUSIVE
-- invalid: if cancelled
-- from: ALTER TABLE, ADD table_constraint_using_index: the catalog only
CREATE UNIQUE INDEX CONCURRENTLY audit_account_key ON audit (account_id);
ALTER TABLE audit ADD CONSTRAINT audit_account_key UNIQUE USING INDEX audit_account_key;

-- add a unique constraint that rows violate [hazard: fails]
-- fails: yes
-- from: CREATE INDEX, UNIQUE: duplicates are an error
ALTER TABLE audit ADD CONSTRAINT audit_action_key UNIQUE (action);

-- add a primary key [hazard: scan]
-- locks: event_2023 ACCESS EXCLUSIVE
-- scans: event_2023
-- from: ALTER TABLE, ADD table_constraint: builds an index under ACCESS EXCLUSIVE
ALTER TABLE event_2023 ADD PRIMARY KEY (id);

-- add a primary key with an index built before [safe]
-- locks: event_2023 ACCESS EXCLUSIVE
-- invalid: if cancelled
-- from: ALTER TABLE, ADD table_constraint_using_index: the columns are NOT NULL, so nothing is scanned
CREATE UNIQUE INDEX CONCURRENTLY event_2023_pkey ON event_2023 (id);
ALTER TABLE event_2023 ADD CONSTRAINT event_2023_pkey PRIMARY KEY USING INDEX event_2023_pkey;

-- add a primary key with an index, on a nullable column [hazard: scan]
-- locks: audit ACCESS EXCLUSIVE
-- scans: audit
-- held: audit
-- invalid: if cancelled
-- from: ALTER TABLE, ADD table_constraint_using_index: sets NOT NULL, which is a full scan
CREATE UNIQUE INDEX CONCURRENTLY audit_code_key ON audit (id, code);
BEGIN;
ALTER TABLE audit DROP CONSTRAINT audit_pkey;
ALTER TABLE audit ADD CONSTRAINT audit_code_key PRIMARY KEY USING INDEX audit_code_key;
COMMIT;

-- add an exclusion constraint [hazard: scan]
-- locks: booking ACCESS EXCLUSIVE
-- scans: booking
-- from: ALTER TABLE, ADD table_constraint: an exclusion constraint builds its index, and cannot use one
ALTER TABLE booking ADD CONSTRAINT booking_no_overlap EXCLUDE USING gist (during WITH &&);

-- a check on a new table [safe]
-- from: CREATE TABLE: no table existed before
BEGIN;
CREATE TABLE coupon (id bigint PRIMARY KEY, percent integer NOT NULL);
ALTER TABLE coupon ADD CONSTRAINT coupon_percent CHECK (percent BETWEEN 1 AND 100);
COMMIT;
