-- Who may see and do what. README.md explains the labels.

-- grant the application a new table [safe]
-- from: GRANT: a table without rows gives nothing away
BEGIN;
CREATE TABLE setting (account_id bigint PRIMARY KEY, theme text);
GRANT SELECT, INSERT, UPDATE, DELETE ON setting TO review_app;
COMMIT;

-- grant a table to everybody [hazard: access]
-- access: widened
-- from: GRANT, PUBLIC: every role, those that are made later too
GRANT SELECT ON account TO PUBLIC;

-- grant a role another table [hazard: access]
-- access: widened
-- from: GRANT
GRANT SELECT ON account TO review_support;

-- grant some columns [hazard: access]
-- access: widened
-- from: GRANT, column privileges
GRANT SELECT (id, email) ON account TO review_support;

-- revoke what nobody uses [safe]
-- access: narrowed
-- from: REVOKE
REVOKE SELECT ON plan FROM review_support;

-- revoke what the application uses [hazard: breaks]
-- access: narrowed
-- breaks: yes
-- from: REVOKE
REVOKE UPDATE ON account FROM review_app;

-- a policy for one more role [hazard: access]
-- locks: item ACCESS EXCLUSIVE
-- access: widened
-- from: CREATE POLICY, Description: permissive policies are combined with OR
BEGIN;
GRANT SELECT ON item TO review_support;
CREATE POLICY item_support ON item FOR SELECT TO review_support USING (true);
COMMIT;

-- a second permissive policy [hazard: access]
-- locks: item ACCESS EXCLUSIVE
-- access: widened
-- from: CREATE POLICY, Description: permissive policies are combined with OR
CREATE POLICY item_shared ON item FOR SELECT TO review_app USING (project_id IS NOT NULL);

-- a restrictive policy [safe]
-- locks: item ACCESS EXCLUSIVE
-- access: narrowed
-- from: CREATE POLICY, Description: restrictive policies are combined with AND
CREATE POLICY item_not_done ON item AS RESTRICTIVE FOR SELECT TO review_app USING (account_id <> 1 OR number <> 1);

-- row security on, with a policy that lets all through [safe]
-- locks: account ACCESS EXCLUSIVE
-- from: ALTER TABLE, ENABLE ROW LEVEL SECURITY; CREATE POLICY
BEGIN;
CREATE POLICY account_all ON account TO review_app USING (true) WITH CHECK (true);
ALTER TABLE account ENABLE ROW LEVEL SECURITY;
COMMIT;

-- row security on, without a policy [hazard: breaks]
-- locks: audit ACCESS EXCLUSIVE
-- access: narrowed
-- breaks: yes
-- from: Row Security Policies: without a policy everything is denied
ALTER TABLE audit ENABLE ROW LEVEL SECURITY;

-- row security off [hazard: access]
-- locks: item ACCESS EXCLUSIVE
-- access: widened
-- from: Row Security Policies: policies of a table whose row security is off are ignored
ALTER TABLE item DISABLE ROW LEVEL SECURITY;

-- drop a policy and write it anew [safe]
-- locks: item ACCESS EXCLUSIVE
-- from: CREATE POLICY, DROP POLICY
BEGIN;
DROP POLICY item_owner ON item;
CREATE POLICY item_owner ON item FOR ALL TO review_app
  USING (account_id = (SELECT current_setting('app.account')::bigint));
COMMIT;

-- a view with security_invoker [safe]
-- from: CREATE VIEW, security_invoker: the reader's own privileges and policies
BEGIN;
CREATE VIEW done_item WITH (security_invoker) AS SELECT id, title FROM item WHERE status = 'done';
GRANT SELECT ON done_item TO review_app;
COMMIT;

-- a view without security_invoker [hazard: access]
-- access: widened
-- from: CREATE VIEW, Notes: the owner's privileges and policies
BEGIN;
CREATE VIEW done_item AS SELECT id, title FROM item WHERE status = 'done';
GRANT SELECT ON done_item TO review_app;
COMMIT;

-- a materialised view for the application [hazard: access]
-- access: widened
-- from: CREATE MATERIALIZED VIEW: rows that the owner read; it has no row security
BEGIN;
CREATE MATERIALIZED VIEW item_title AS SELECT id, account_id, title FROM item;
GRANT SELECT ON item_title TO review_app;
COMMIT;

-- a security definer function for everybody [hazard: access]
-- access: widened
-- from: CREATE FUNCTION, Writing SECURITY DEFINER Functions Safely: PUBLIC may execute a new function
CREATE FUNCTION all_items() RETURNS SETOF item LANGUAGE sql STABLE SECURITY DEFINER AS 'SELECT * FROM item';

-- a function with the caller's privileges [safe]
-- from: CREATE FUNCTION, SECURITY INVOKER: the default
CREATE FUNCTION all_items() RETURNS SETOF item LANGUAGE sql STABLE AS 'SELECT * FROM item';

-- a security definer function that nobody may execute [safe]
-- from: CREATE FUNCTION, Writing SECURITY DEFINER Functions Safely: revoke in the same transaction
BEGIN;
CREATE FUNCTION all_items() RETURNS SETOF item LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = public, pg_temp AS 'SELECT * FROM item';
REVOKE EXECUTE ON FUNCTION all_items() FROM PUBLIC;
COMMIT;

-- a trigger [safe]
-- locks: account SHARE ROW EXCLUSIVE
-- from: Explicit Locking, SHARE ROW EXCLUSIVE: taken by CREATE TRIGGER
BEGIN;
CREATE FUNCTION lower_email() RETURNS trigger LANGUAGE plpgsql
  AS 'BEGIN NEW.email := lower(NEW.email); RETURN NEW; END';
CREATE TRIGGER account_lower_email BEFORE INSERT OR UPDATE ON account FOR EACH ROW EXECUTE FUNCTION lower_email();
COMMIT;

-- a trigger that refuses what the application does [hazard: breaks]
-- locks: item SHARE ROW EXCLUSIVE
-- breaks: yes
-- from: CREATE TRIGGER: an error in the function is the statement's
BEGIN;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
  AS 'BEGIN RAISE EXCEPTION ''items stay''; END';
CREATE TRIGGER item_stays BEFORE DELETE ON item FOR EACH ROW EXECUTE FUNCTION refuse();
COMMIT;

-- disable a trigger [safe]
-- locks: item SHARE ROW EXCLUSIVE
-- from: ALTER TABLE, DISABLE TRIGGER: SHARE ROW EXCLUSIVE
ALTER TABLE item DISABLE TRIGGER item_touch;

-- a rule [safe]
-- locks: audit ACCESS EXCLUSIVE
-- from: CREATE RULE; Explicit Locking, ACCESS EXCLUSIVE
CREATE RULE audit_is_kept AS ON DELETE TO audit DO ALSO NOTIFY audit_deleted;

-- replace a function [safe]
-- from: CREATE FUNCTION, OR REPLACE: same arguments and result, triggers stay
CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql
  AS 'BEGIN NEW.updated_at := now(); RETURN NEW; END';

-- row security for the owner too [safe]
-- locks: item ACCESS EXCLUSIVE
-- from: ALTER TABLE, FORCE ROW LEVEL SECURITY: concerns the owner only
ALTER TABLE item FORCE ROW LEVEL SECURITY;

-- a view that becomes its reader's [safe]
-- locks: open_item ACCESS EXCLUSIVE
-- from: ALTER VIEW, SET: the catalog only
ALTER VIEW open_item SET (security_invoker = true, security_barrier = true);

-- a view that becomes its owner's [hazard: access]
-- locks: open_item ACCESS EXCLUSIVE
-- access: widened
-- from: CREATE VIEW, Notes: without security_invoker the owner's policies count
ALTER VIEW open_item RESET (security_invoker);
