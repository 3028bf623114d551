-- Rows for tests/snapshot/schema.sql. Its triggers are no use: they write a column that few tables have.

ALTER TABLE book DISABLE TRIGGER USER;
ALTER TABLE visit DISABLE TRIGGER USER;
INSERT INTO reader (id, email, name, weight, token, path, "Odd  ""name""") VALUES
  ('11111111-1111-4111-8111-111111111111', 'ann@example.org', 'Ann', 1.5, '\x02', 'a\b', 7),
  ('22222222-2222-4222-8222-222222222222', 'bob@example.org', 'Bob', 0.1, NULL, 'c', NULL),
  ('33333333-3333-4333-8333-333333333333', 'eve@example.org', 'Eve', 2, '\x03', 'd', 0);
INSERT INTO book (reader_id, isbn, state, place, title, lent)
SELECT r.id, '1' || i, (ARRAY['open', 'lent', 'lost']::library.state[])[1 + i % 3], ROW('a', i)::library.place,
  'Book ' || i, CASE WHEN i = 2 THEN tstzrange('2024-01-01', '2024-02-01') END
FROM reader AS r, generate_series(1, 1) AS i WHERE r.name = 'Ann'
UNION ALL
SELECT '22222222-2222-4222-8222-222222222222', '9' || i, 'open', NULL, 'Tale ' || i, NULL
FROM generate_series(1, 3) AS i;
INSERT INTO visit (at, reader_id, note) VALUES
  ('2024-03-01', '11111111-1111-4111-8111-111111111111', 'x'), ('2030-01-01', NULL, NULL);
INSERT INTO visit_2023 VALUES ('2023-03-01', NULL, 'old');
INSERT INTO thing VALUES (1), (2);
INSERT INTO lamp VALUES (3, 60);
INSERT INTO chair VALUES (10, 4);
INSERT INTO shelf VALUES ('a', 1), ('b', 2);
SET CONSTRAINTS ALL IMMEDIATE;
ALTER TABLE book ENABLE TRIGGER USER;
ALTER TABLE visit ENABLE TRIGGER USER;
