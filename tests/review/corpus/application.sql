-- What the application that is already running executes, as review_app for account 1. Each statement
-- succeeds before a migration; a migration after which one of them fails breaks the application.

SELECT id, name FROM plan;
SELECT id, plan_id, email, name, phone, country, created_at FROM account WHERE id = 1;
UPDATE account SET name = repeat('n', 60) WHERE id = 1;
INSERT INTO account (id, plan_id, email, name) VALUES (90001, 1, 'new@example.com', 'New');
SELECT id, account_id, title FROM project WHERE account_id = 1;
SELECT id, project_id, status, title, note, price, number, slug FROM item WHERE account_id = 1;
SELECT id FROM item WHERE status = 'open'::item_status;
INSERT INTO item (account_id, project_id, status, title, number) VALUES (1, 1, 'doing', repeat('t', 80), 90001);
UPDATE item SET title = 'Changed', price = 99999999.99, note = NULL, project_id = NULL WHERE account_id = 1;
DELETE FROM item WHERE account_id = 1;
INSERT INTO audit (account_id, action, code) VALUES (20000, repeat('a', 300), 7);
SELECT account_id, action, code, happened_at FROM audit WHERE account_id = 1;
SELECT id, happened_on, kind FROM event WHERE happened_on = '2024-05-01';
INSERT INTO event (id, happened_on, kind) VALUES (90001, '2025-05-01', 'kind 1');
SELECT id, title FROM open_item;
SELECT action, number FROM action_count;
