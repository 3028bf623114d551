-- Columns: added, dropped, renamed, made mandatory. README.md explains the labels.

-- add a nullable column [safe]
-- locks: item ACCESS EXCLUSIVE
-- from: ALTER TABLE, Notes: without DEFAULT nothing but the catalog changes
ALTER TABLE item ADD COLUMN priority integer;

-- add a column with a constant default [safe]
-- locks: item ACCESS EXCLUSIVE
-- from: ALTER TABLE, Notes: a default that is not volatile is evaluated once and stored in the catalog
ALTER TABLE item ADD COLUMN priority integer NOT NULL DEFAULT 3;

-- add a column with a stable default [safe]
-- locks: audit ACCESS EXCLUSIVE
-- from: ALTER TABLE, Notes: now() is stable, so one value serves all rows
ALTER TABLE audit ADD COLUMN imported_at timestamptz NOT NULL DEFAULT now();

-- add a column with a volatile default [hazard: rewrite]
-- locks: item ACCESS EXCLUSIVE
-- rewrites: item
-- from: ALTER TABLE, Notes: a volatile default rewrites the table
ALTER TABLE item ADD COLUMN public_id uuid NOT NULL DEFAULT gen_random_uuid();

-- add a column, then give it a volatile default [safe]
-- locks: item ACCESS EXCLUSIVE
-- from: ALTER TABLE, SET DEFAULT: only later rows get it
BEGIN;
ALTER TABLE item ADD COLUMN public_id uuid;
ALTER TABLE item ALTER COLUMN public_id SET DEFAULT gen_random_uuid();
COMMIT;

-- add a stored generated column [hazard: rewrite]
-- locks: account ACCESS EXCLUSIVE
-- rewrites: account
-- from: ALTER TABLE, Notes: a stored generated column rewrites the table
ALTER TABLE account ADD COLUMN email_key text GENERATED ALWAYS AS (lower(email)) STORED;

-- add a virtual generated column [safe, since 18]
-- locks: account ACCESS EXCLUSIVE
-- from: ALTER TABLE, Notes: a virtual generated column never rewrites the table
ALTER TABLE account ADD COLUMN email_key text GENERATED ALWAYS AS (lower(email)) VIRTUAL;

-- add an identity column [hazard: rewrite]
-- locks: booking ACCESS EXCLUSIVE
-- rewrites: booking
-- from: ALTER TABLE, Notes: an identity column rewrites the table
ALTER TABLE booking ADD COLUMN serial_number bigint GENERATED ALWAYS AS IDENTITY;

-- add a mandatory column without a default [hazard: fails]
-- fails: yes
-- from: ALTER TABLE, ADD COLUMN: existing rows get NULL, which NOT NULL refuses
ALTER TABLE item ADD COLUMN priority integer NOT NULL;

-- add a mandatory column whose default goes at once [hazard: breaks]
-- locks: item ACCESS EXCLUSIVE
-- breaks: yes
-- from: ALTER TABLE, SET/DROP DEFAULT: later inserts without the column get NULL
BEGIN;
ALTER TABLE item ADD COLUMN priority integer NOT NULL DEFAULT 3;
ALTER TABLE item ALTER COLUMN priority DROP DEFAULT;
COMMIT;

-- set not null [hazard: scan]
-- locks: audit ACCESS EXCLUSIVE
-- scans: audit
-- from: ALTER TABLE, SET NOT NULL: the whole table is scanned
ALTER TABLE audit ALTER COLUMN code SET NOT NULL;

-- set not null behind a validated check [safe]
-- locks: audit ACCESS EXCLUSIVE
-- from: ALTER TABLE, SET NOT NULL: the scan is left out when a valid CHECK shows that there is no NULL
ALTER TABLE audit ADD CONSTRAINT audit_code_set CHECK (code IS NOT NULL) NOT VALID;
ALTER TABLE audit VALIDATE CONSTRAINT audit_code_set;
ALTER TABLE audit ALTER COLUMN code SET NOT NULL;
ALTER TABLE audit DROP CONSTRAINT audit_code_set;

-- set not null behind a check that was not validated [hazard: scan]
-- locks: audit ACCESS EXCLUSIVE
-- scans: audit
-- from: ALTER TABLE, SET NOT NULL: only a valid CHECK saves the scan
ALTER TABLE audit ADD CONSTRAINT audit_code_set CHECK (code IS NOT NULL) NOT VALID;
ALTER TABLE audit ALTER COLUMN code SET NOT NULL;

-- not null, not valid at first [safe, since 18]
-- locks: audit ACCESS EXCLUSIVE
-- from: ALTER TABLE, Notes: NOT NULL may be NOT VALID since 18, and is validated under a weaker lock
ALTER TABLE audit ADD CONSTRAINT audit_code_set NOT NULL code NOT VALID;
ALTER TABLE audit VALIDATE CONSTRAINT audit_code_set;

-- set not null on a small table [safe]
-- locks: archive.item_2019 ACCESS EXCLUSIVE
-- from: ALTER TABLE, SET NOT NULL: it scans, but the table has 50 rows
ALTER TABLE archive.item_2019 ALTER COLUMN title SET NOT NULL;

-- drop not null [safe]
-- locks: project ACCESS EXCLUSIVE
-- from: ALTER TABLE, DROP NOT NULL: the catalog only
ALTER TABLE project ALTER COLUMN title DROP NOT NULL;

-- change a default [safe]
-- locks: account ACCESS EXCLUSIVE
-- from: ALTER TABLE, SET DEFAULT: existing rows stay as they are
ALTER TABLE account ALTER COLUMN country SET DEFAULT 'FR';

-- drop a column that the application reads [hazard: loses]
-- locks: item ACCESS EXCLUSIVE
-- loses: item.note
-- breaks: yes
-- reversible: no
-- from: ALTER TABLE, DROP COLUMN: quick, and the values are out of reach
ALTER TABLE item DROP COLUMN note;

-- drop a column that nobody reads [hazard: loses]
-- locks: booking ACCESS EXCLUSIVE
-- loses: booking.room
-- reversible: no
-- from: ALTER TABLE, DROP COLUMN
ALTER TABLE booking DROP COLUMN room;

-- drop a column and its constraints with cascade [hazard: loses]
-- locks: plan ACCESS EXCLUSIVE, account ACCESS EXCLUSIVE
-- loses: plan.id
-- breaks: yes
-- reversible: no
-- from: ALTER TABLE, DROP COLUMN: CASCADE drops the foreign keys that need it
ALTER TABLE plan DROP COLUMN id CASCADE;

-- rename a column [hazard: breaks]
-- locks: account ACCESS EXCLUSIVE
-- breaks: yes
-- from: ALTER TABLE, RENAME: stored data stay, the old name does not
ALTER TABLE account RENAME COLUMN phone TO telephone;

-- comments [safe]
-- locks: item SHARE UPDATE EXCLUSIVE, account SHARE UPDATE EXCLUSIVE
-- from: COMMENT, Description: SHARE UPDATE EXCLUSIVE on the object
BEGIN;
COMMENT ON TABLE item IS 'What an account has to do';
COMMENT ON COLUMN account.email IS 'PERSONAL: where letters go';
COMMIT;

-- statistics targets and extended statistics [safe]
-- locks: item SHARE UPDATE EXCLUSIVE
-- from: ALTER TABLE, SET STATISTICS; CREATE STATISTICS, Notes
ALTER TABLE item ALTER COLUMN status SET STATISTICS 500;
CREATE STATISTICS item_account_status ON account_id, status FROM item;

-- storage parameters [safe]
-- locks: item SHARE UPDATE EXCLUSIVE
-- from: ALTER TABLE, SET storage_parameter: fillfactor and autovacuum take the weaker lock
ALTER TABLE item SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);

-- add a column with a check [hazard: scan]
-- locks: item ACCESS EXCLUSIVE
-- scans: item
-- from: ALTER TABLE, Notes: a new CHECK is verified in a scan, also when its column is new
ALTER TABLE item ADD COLUMN priority integer CHECK (priority > 0);

-- add a unique column [hazard: scan]
-- locks: item ACCESS EXCLUSIVE
-- scans: item
-- from: ALTER TABLE, ADD COLUMN; CREATE INDEX: the column's index is built under the lock
ALTER TABLE item ADD COLUMN public_id uuid UNIQUE;

-- add a column with a default that refers to a table [hazard: scan]
-- locks: item ACCESS EXCLUSIVE, plan SHARE ROW EXCLUSIVE
-- scans: item
-- from: ALTER TABLE, ADD table_constraint: the rows have a value, so the foreign key is checked
ALTER TABLE item ADD COLUMN plan_id integer DEFAULT 1 REFERENCES plan;

-- add a column of a domain with a check [hazard: rewrite]
-- locks: account ACCESS EXCLUSIVE
-- rewrites: account
-- from: ALTER TABLE, Notes: a domain with constraints rewrites the table
BEGIN;
CREATE DOMAIN email_address AS text CHECK (value LIKE '%@%');
ALTER TABLE account ADD COLUMN second_email email_address;
COMMIT;

-- a column and a check in one statement [hazard: scan]
-- locks: item ACCESS EXCLUSIVE
-- scans: item
-- from: ALTER TABLE, Description: one pass for all that a statement asks for, under the strictest lock
ALTER TABLE item ADD COLUMN priority integer, ADD CONSTRAINT item_number_positive CHECK (number > 0);

-- a column becomes an identity column [safe]
-- locks: item ACCESS EXCLUSIVE
-- from: ALTER TABLE, ADD GENERATED: like a default, it concerns later rows
ALTER TABLE item ALTER COLUMN number ADD GENERATED BY DEFAULT AS IDENTITY;

-- how a column is stored [safe]
-- locks: item ACCESS EXCLUSIVE
-- from: ALTER TABLE, SET STORAGE: later rows only
ALTER TABLE item ALTER COLUMN note SET STORAGE EXTERNAL;

-- replica identity [safe]
-- locks: audit ACCESS EXCLUSIVE
-- from: ALTER TABLE, REPLICA IDENTITY: the catalog only
ALTER TABLE audit REPLICA IDENTITY FULL;

-- a column added with a short wait [safe]
-- locks: account ACCESS EXCLUSIVE
-- from: Client Connection Defaults, lock_timeout; ALTER TABLE, Notes
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE account ADD COLUMN IF NOT EXISTS nickname text;
COMMIT;
