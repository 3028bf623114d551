-- Types of columns. README.md explains the labels.

-- widen a varchar [safe]
-- locks: account ACCESS EXCLUSIVE
-- from: ALTER TABLE, Notes: a binary coercible type needs no rewrite; 9.2's release notes name varchar
ALTER TABLE account ALTER COLUMN name TYPE varchar(200);

-- varchar to text [safe]
-- locks: account ACCESS EXCLUSIVE
-- from: ALTER TABLE, Notes: binary coercible
ALTER TABLE account ALTER COLUMN name TYPE text;

-- narrow a varchar [hazard: rewrite]
-- locks: account ACCESS EXCLUSIVE
-- rewrites: account
-- breaks: yes
-- from: ALTER TABLE, Notes: a changed type rewrites the table
ALTER TABLE account ALTER COLUMN name TYPE varchar(30);

-- text to varchar [hazard: rewrite]
-- locks: item ACCESS EXCLUSIVE
-- rewrites: item
-- from: ALTER TABLE, Notes: the length has to be checked, so the type is not binary coercible
ALTER TABLE item ALTER COLUMN note TYPE varchar(500);

-- another type of a column that a view shows [hazard: fails]
-- fails: yes
-- from: ALTER TABLE, Notes; Rules and Views: a view keeps the types of its columns
ALTER TABLE audit ALTER COLUMN action TYPE varchar(500);

-- integer to bigint [hazard: rewrite]
-- locks: item ACCESS EXCLUSIVE
-- rewrites: item
-- from: ALTER TABLE, Notes: another size on disk
ALTER TABLE item ALTER COLUMN number TYPE bigint;

-- another type in a small table [safe]
-- locks: archive.item_2019 ACCESS EXCLUSIVE
-- from: ALTER TABLE, Notes: a rewrite, of 50 rows
ALTER TABLE archive.item_2019 ALTER COLUMN title TYPE varchar(200);

-- a key of a small table that a big one refers to [hazard: scan]
-- locks: plan ACCESS EXCLUSIVE, account ACCESS EXCLUSIVE
-- scans: account
-- from: ALTER TABLE, SET DATA TYPE: constraints that use the column are made anew, so the foreign key is checked
ALTER TABLE plan ALTER COLUMN id TYPE bigint;

-- integer to bigint by a new column and a trigger [safe]
-- locks: item ACCESS EXCLUSIVE
-- from: CREATE TRIGGER, Notes; ALTER TABLE, Notes: nothing of it touches rows
BEGIN;
ALTER TABLE item ADD COLUMN number_wide bigint;
CREATE FUNCTION copy_number() RETURNS trigger LANGUAGE plpgsql
  AS 'BEGIN NEW.number_wide := NEW.number; RETURN NEW; END';
CREATE TRIGGER item_copy_number BEFORE INSERT OR UPDATE ON item FOR EACH ROW EXECUTE FUNCTION copy_number();
COMMIT;

-- timestamp to timestamptz in UTC [safe]
-- locks: account ACCESS EXCLUSIVE
-- from: release notes of 12: no rewrite when the session's time zone is UTC
BEGIN;
SET LOCAL timezone = 'UTC';
ALTER TABLE account ALTER COLUMN created_at TYPE timestamptz;
COMMIT;

-- timestamp to timestamptz elsewhere [hazard: rewrite]
-- locks: account ACCESS EXCLUSIVE
-- rewrites: account
-- from: ALTER TABLE, Notes; release notes of 12: any other time zone rewrites
BEGIN;
SET LOCAL timezone = 'Europe/Berlin';
ALTER TABLE account ALTER COLUMN created_at TYPE timestamptz;
COMMIT;

-- timestamp to timestamptz with USING [hazard: rewrite]
-- locks: account ACCESS EXCLUSIVE
-- rewrites: account
-- from: ALTER TABLE, Notes: a USING that computes rewrites the table, in UTC too
ALTER TABLE account ALTER COLUMN created_at TYPE timestamptz USING created_at AT TIME ZONE 'UTC';

-- timestamp to date [hazard: rewrite]
-- locks: audit ACCESS EXCLUSIVE
-- rewrites: audit
-- loses: audit.happened_at
-- reversible: no
-- from: ALTER TABLE, Notes; Date/Time Types: a date has no time of day
ALTER TABLE audit ALTER COLUMN happened_at TYPE date;

-- widen a numeric [safe]
-- locks: item ACCESS EXCLUSIVE
-- from: release notes of 9.2: a larger precision of the same scale needs no rewrite
ALTER TABLE item ALTER COLUMN price TYPE numeric(14, 2);

-- fewer digits of a numeric [hazard: rewrite]
-- locks: item ACCESS EXCLUSIVE
-- rewrites: item
-- loses: item.price
-- reversible: no
-- from: Numeric Types: a smaller scale rounds
ALTER TABLE item ALTER COLUMN price TYPE numeric(10, 0);

-- enum to text [hazard: rewrite]
-- locks: open_item ACCESS EXCLUSIVE, item ACCESS EXCLUSIVE
-- rewrites: item
-- held: open_item, item
-- several: open_item
-- breaks: yes
-- from: ALTER TABLE, Notes; Enumerated Types: a value is stored as four bytes; an enum and text have no common =
BEGIN;
DROP VIEW open_item;
ALTER TABLE item ALTER COLUMN status DROP DEFAULT;
ALTER TABLE item ALTER COLUMN status TYPE text USING status::text;
ALTER TABLE item ALTER COLUMN status SET DEFAULT 'open';
CREATE VIEW open_item WITH (security_invoker) AS SELECT id, title FROM item WHERE status = 'open';
GRANT SELECT ON open_item TO review_app;
COMMIT;

-- enum: add a value [hazard: irreversible]
-- reversible: no
-- from: Enumerated Types, Implementation Details: a value cannot be removed
ALTER TYPE item_status ADD VALUE 'waiting' BEFORE 'done';

-- enum: rename a value [safe]
-- from: ALTER TYPE, RENAME VALUE: the catalog only
ALTER TYPE item_status RENAME VALUE 'done' TO 'finished';

-- a new domain [safe]
-- from: CREATE DOMAIN: touches no table
CREATE DOMAIN email_address AS text CHECK (value LIKE '%@%');

-- another collation of an indexed column [hazard: scan]
-- locks: account ACCESS EXCLUSIVE
-- scans: account
-- from: ALTER TABLE, Notes: no rewrite, but a changed collation makes the column's indexes anew
ALTER TABLE account ALTER COLUMN email TYPE text COLLATE "C";
