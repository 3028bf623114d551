-- Backfills, and what else changes rows. README.md explains the labels.

-- fill a column of every row [hazard: backfill]
-- locks: item ROW EXCLUSIVE
-- writes: item
-- from: UPDATE; Explicit Locking, Row-Level Locks: each row stays locked to the end of the transaction
UPDATE item SET slug = 'item-' || id;

-- fill a column in batches [safe]
-- locks: item ROW EXCLUSIVE
-- from: UPDATE; Explicit Locking, Row-Level Locks: a batch's locks end with its transaction
UPDATE item SET slug = 'item-' || id WHERE id BETWEEN 1 AND 5000;
UPDATE item SET slug = 'item-' || id WHERE id BETWEEN 5001 AND 10000;
UPDATE item SET slug = 'item-' || id WHERE id BETWEEN 10001 AND 15000;
UPDATE item SET slug = 'item-' || id WHERE id BETWEEN 15001 AND 20000;

-- fill a column in batches of one transaction [hazard: backfill]
-- locks: item ROW EXCLUSIVE
-- writes: item
-- from: Explicit Locking, Row-Level Locks: to the end of the transaction
BEGIN;
UPDATE item SET slug = 'item-' || id WHERE id <= 10000;
UPDATE item SET slug = 'item-' || id WHERE id > 10000;
COMMIT;

-- add a column and fill it in one transaction [hazard: held]
-- locks: item ACCESS EXCLUSIVE
-- scans: item
-- writes: item
-- held: item
-- from: Explicit Locking: a lock is kept to the end of the transaction
BEGIN;
ALTER TABLE item ADD COLUMN public_id uuid;
UPDATE item SET public_id = gen_random_uuid();
COMMIT;

-- add a column, fill it and make it mandatory [hazard: held]
-- locks: account ACCESS EXCLUSIVE
-- scans: account
-- writes: account
-- held: account
-- breaks: yes
-- from: Explicit Locking; ALTER TABLE, SET NOT NULL
BEGIN;
ALTER TABLE account ADD COLUMN locale text;
UPDATE account SET locale = lower(country);
ALTER TABLE account ALTER COLUMN locale SET NOT NULL;
COMMIT;

-- correct a few rows [safe]
-- locks: account ROW EXCLUSIVE
-- from: UPDATE
UPDATE account SET phone = '+44' || phone WHERE id < 10;

-- overwrite a column of every row [hazard: loses]
-- locks: account ROW EXCLUSIVE
-- writes: account
-- loses: account.phone
-- reversible: no
-- from: UPDATE: nothing keeps the old values
UPDATE account SET phone = NULL;

-- delete every row [hazard: loses]
-- locks: cache ROW EXCLUSIVE
-- writes: cache
-- loses: cache rows
-- reversible: no
-- from: DELETE, Description: without WHERE every row
DELETE FROM cache;

-- delete some rows [hazard: loses]
-- locks: audit ROW EXCLUSIVE
-- loses: audit rows
-- reversible: no
-- from: DELETE
DELETE FROM audit WHERE id <= 100;

-- delete parents, and their children by cascade [hazard: loses]
-- locks: account ROW EXCLUSIVE, item ROW EXCLUSIVE, project ROW EXCLUSIVE
-- loses: account rows, item rows, project rows
-- reversible: no
-- from: Constraints, Foreign Keys: ON DELETE CASCADE
DELETE FROM account WHERE id > 19900 OR id = 100;

-- reference data [safe]
-- locks: plan ROW EXCLUSIVE
-- from: INSERT
INSERT INTO plan (id, name) VALUES (6, 'team'), (7, 'company') ON CONFLICT (id) DO NOTHING;

-- copy a table into a new one [safe]
-- from: CREATE TABLE AS: reads it as a SELECT does
CREATE TABLE audit_copy AS SELECT * FROM audit;

-- fill a column in a loop [hazard: backfill]
-- locks: item ROW EXCLUSIVE
-- writes: item
-- from: PL/pgSQL, Transaction Management: without COMMIT a loop is one transaction
BEGIN;
DO $$
BEGIN
  FOR batch IN 0..3 LOOP
    UPDATE item SET slug = 'item-' || id WHERE id > batch * 5000 AND id <= (batch + 1) * 5000;
  END LOOP;
END
$$;
COMMIT;

-- a condition that every row meets [hazard: backfill]
-- locks: item ROW EXCLUSIVE
-- writes: item
-- from: Explicit Locking, Row-Level Locks: a WHERE that leaves nothing out saves nothing
UPDATE item SET slug = 'item-' || id WHERE slug IS NULL;

-- an update that meets no row [safe]
-- locks: item ROW EXCLUSIVE
-- from: UPDATE, Outputs: a count of 0 is not an error
UPDATE item SET slug = 'none' WHERE number < 0;
