"""Who can see and do more than before is found by trying it on rows.

The theory: a policy is read wrongly by people and by tools, and views and functions give rows away
that no policy mentions. What counts is which rows a statement of a role reaches. Each case is a
change of one small schema with a role of its own; each that gives nothing away must be silent.
"""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import URL

from schema.postgres.scratch import Server
from schema.review.access.changes import PUBLIC, changes
from schema.review.access.trial import Access, platform_roles, read_access
from schema.review.execution.databases import session
from schema.review.findings import of_access
from schema.review.result import AccessChange

BASE = """
CREATE TABLE note (id int PRIMARY KEY, owner int NOT NULL, body text);
INSERT INTO note SELECT n, n % 2, 'note ' || n FROM generate_series(1, 8) AS n;
ALTER TABLE note ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE ON note TO {role};
CREATE POLICY own ON note TO {role} USING (owner = current_setting('test.me')::int);
CREATE TABLE secret (id int PRIMARY KEY, body text);
INSERT INTO secret VALUES (1, 'hidden');
CREATE TABLE diary (id int PRIMARY KEY, user_id int NOT NULL);
INSERT INTO diary VALUES (1, 0), (2, 1);
ALTER TABLE diary ENABLE ROW LEVEL SECURITY;
GRANT SELECT, UPDATE ON diary TO {role};
CREATE POLICY own ON diary TO {role} USING (user_id = current_setting('test.me')::int);
"""
ME = {"test.me": ["1"]}


@dataclass(frozen=True)
class Ground:
    """A database, and the role that the cases are about."""

    owner: URL
    superuser: URL
    role: str


@pytest.fixture(scope="module")
def role(main_server: Server) -> Iterator[str]:
    """A group role of these tests' own: roles belong to the whole server."""
    name = f"review_{secrets.token_hex(4)}"
    with session(main_server.maintenance) as opened:
        opened.execute(f"CREATE ROLE {name}".encode())
        yield name
        opened.execute(f"DROP ROLE {name}".encode())


@pytest.fixture
def ground(main_server: Server, superusers: dict[int, URL], empty: URL, role: str) -> Ground:
    """The schema of these tests."""
    version = int(main_server.version.split(".")[0])
    with session(empty) as opened:
        opened.execute(BASE.format(role=role).encode())
    return Ground(empty, superusers[version].set(database=empty.database), role)


@pytest.fixture
def changed(ground: Ground) -> Callable[..., tuple[AccessChange, ...]]:
    """Execute SQL on it, and return how access changes."""

    def change(*statements: str) -> tuple[AccessChange, ...]:
        before = read(ground)
        with session(ground.owner) as opened:
            for one in statements:
                opened.execute(one.format(role=ground.role).encode())
        return changes(before, read(ground))

    return change


def read(ground: Ground) -> Access:
    """Read what every role can do."""
    with session(ground.superuser) as opened:
        return read_access(opened, ME, platform_roles(opened))


WIDER = {
    "a second policy": (
        ["CREATE POLICY more ON note FOR SELECT TO {role} USING (id < 5)"],
        ("{role}", "note", "SELECT", "4 of 8 rows", "6 of 8 rows"),
    ),
    "row security off": (
        ["ALTER TABLE note DISABLE ROW LEVEL SECURITY"],
        ("{role}", "note", "SELECT", "4 of 8 rows", "all rows, without row security"),
    ),
    "writing others' rows": (
        ["CREATE POLICY more ON note FOR INSERT TO {role} WITH CHECK (true)"],
        ("{role}", "note", "INSERT", "3 of 6 rows", "all rows"),
    ),
    "a privilege": (
        ["GRANT DELETE ON note TO {role}"],
        ("{role}", "note", "DELETE", "no rows", "4 of 8 rows"),
    ),
    "a column": (
        ["GRANT SELECT (body) ON secret TO {role}"],
        ("{role}", "secret", "SELECT of body", "no", "yes"),
    ),
    "everybody": (
        ["GRANT SELECT ON secret TO PUBLIC"],
        (PUBLIC, "secret", "SELECT", "no rows", "all rows"),
    ),
    "everybody, on a new table": (
        ["CREATE TABLE extra (id int)", "GRANT SELECT ON extra TO PUBLIC"],
        (PUBLIC, "extra", "SELECT", "no", "yes"),
    ),
    "a view of the owner's": (
        ["CREATE VIEW all_notes AS SELECT * FROM note", "GRANT SELECT ON all_notes TO {role}"],
        ("{role}", "view all_notes", "SELECT", "nothing",
         "8 rows, of which the role itself reaches 4"),
    ),
    "a function with the owner's rights": (
        ["CREATE FUNCTION everything() RETURNS SETOF note SECURITY DEFINER SET search_path = public"
         " LANGUAGE sql AS 'SELECT * FROM note'"],
        (PUBLIC, "function everything()", "EXECUTE", "nothing",
         "8 rows that the role itself does not reach"),
    ),
    "one that takes an argument": (
        ["CREATE FUNCTION body_of(id int) RETURNS text SECURITY DEFINER SET search_path = public"
         " LANGUAGE sql AS 'SELECT body FROM secret AS s WHERE s.id = body_of.id'",
         "REVOKE ALL ON FUNCTION body_of FROM PUBLIC",
         "GRANT EXECUTE ON FUNCTION body_of TO {role}"],
        ("{role}", "function body_of(integer)", "EXECUTE", "nothing",
         "1 row that the role itself does not reach"),
    ),
    "what is made later": (
        ["ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}"],
        ("{role}", "later tables", "SELECT", "no", "yes"),
    ),
    "making objects": (
        ["GRANT CREATE ON SCHEMA public TO {role}"],
        ("{role}", "schema public", "CREATE", "no", "yes"),
    ),
    "an aggregate over others' rows": (
        ["CREATE VIEW bodies AS SELECT string_agg(body, ',') FROM note",
         "GRANT SELECT ON bodies TO {role}"],
        ("{role}", "view bodies", "SELECT", "nothing", "rows of other users"),
    ),
    "a function whose argument is like no column": (
        ["CREATE FUNCTION nth(n bigint) RETURNS text STRICT SECURITY DEFINER"
         " SET search_path = public LANGUAGE sql"
         " AS 'SELECT body FROM note WHERE owner = 0 ORDER BY id OFFSET n LIMIT 1'"],
        (PUBLIC, "function nth(bigint)", "EXECUTE", "nothing",
         "1 row that the role itself does not reach"),
    ),
    "a function of whose results nothing is seen": (
        ["CREATE FUNCTION guess(word text) RETURNS SETOF note STRICT SECURITY DEFINER"
         " SET search_path = public LANGUAGE sql"
         " AS $$SELECT * FROM note WHERE word = 'open sesame'$$"],
        (PUBLIC, "function guess(text)", "EXECUTE", "nothing", "what it gives could not be tried"),
    ),
    "a function that deletes": (
        ["CREATE FUNCTION clear() RETURNS void SECURITY DEFINER SET search_path = public"
         " LANGUAGE sql AS 'DELETE FROM note'"],
        (PUBLIC, "function clear()", "EXECUTE", "nothing",
         "writes 8 rows that the role itself cannot write"),
    ),
    "a function that updates others' rows": (
        ["CREATE FUNCTION wipe() RETURNS void SECURITY DEFINER SET search_path = public"
         " LANGUAGE plpgsql AS $$BEGIN UPDATE note SET body = '' WHERE owner = 0; END$$",
         "REVOKE ALL ON FUNCTION wipe FROM PUBLIC",
         "GRANT EXECUTE ON FUNCTION wipe TO {role}"],
        ("{role}", "function wipe()", "EXECUTE", "nothing",
         "writes 4 rows that the role itself cannot write"),
    ),
    "a copy of a table": (
        ["CREATE TABLE copied AS SELECT * FROM note", "GRANT SELECT ON copied TO {role}"],
        ("{role}", "copied", "SELECT", "no table", "all users' rows"),
    ),
    "a new table of users' rows without row security": (
        ["CREATE TABLE label (user_id int NOT NULL, name text)",
         "GRANT SELECT, INSERT ON label TO {role}"],
        ("{role}", "label", "INSERT", "no table", "all users' rows"),
    ),
    "a new table with a policy for everybody": (
        ["CREATE TABLE label (user_id int NOT NULL, name text)",
         "INSERT INTO label VALUES (1, 'one'), (0, 'two')",
         "ALTER TABLE label ENABLE ROW LEVEL SECURITY",
         "CREATE POLICY every ON label USING (true)",
         "GRANT SELECT ON label TO {role}"],
        ("{role}", "label", "SELECT", "no table", "all users' rows"),
    ),
    "a new table whose rows belong to users' rows": (
        ["CREATE TABLE comment (id int PRIMARY KEY, note_id int REFERENCES note, body text)",
         "GRANT SELECT ON comment TO {role}"],
        ("{role}", "comment", "SELECT", "no table", "all users' rows"),
    ),
    "updating through a view": (
        ["CREATE VIEW notes AS SELECT id, owner, body FROM note",
         "GRANT UPDATE ON notes TO {role}"],
        ("{role}", "view notes", "UPDATE", "nothing",
         "8 rows, of which the role itself reaches 4"),
    ),
    "deleting through a view": (
        ["CREATE VIEW notes AS SELECT id, owner, body FROM note",
         "GRANT DELETE ON notes TO {role}"],
        ("{role}", "view notes", "DELETE", "nothing",
         "8 rows that the role itself does not reach"),
    ),
    "inserting through a view": (
        ["CREATE VIEW notes AS SELECT id, owner, body FROM note",
         "GRANT INSERT ON notes TO {role}"],
        ("{role}", "view notes", "INSERT", "nothing",
         "6 rows, of which the role itself reaches 3"),
    ),
    "everything for nobody": (
        ["CREATE POLICY nobody ON note FOR SELECT TO {role}"
         " USING (NULLIF(current_setting('test.me', true), '') IS NULL)",
         "ALTER POLICY own ON note"
         " USING (owner = NULLIF(current_setting('test.me', true), '')::int)"],
        ("{role}", "note", "SELECT", "4 of 8 rows", "all rows"),
    ),
    "everything before a setting is made": (
        ["CREATE POLICY unset ON note FOR SELECT TO {role}"
         " USING (current_setting('test.me', true) IS NULL)",
         "ALTER POLICY own ON note"
         " USING (owner = NULLIF(current_setting('test.me', true), '')::int)"],
        ("{role}", "note", "SELECT", "4 of 8 rows", "all rows"),
    ),
    "giving a row away": (
        ["ALTER POLICY own ON diary WITH CHECK (true)"],
        ("{role}", "diary", "UPDATE to another user", "no rows", "1 of 2 rows"),
    ),
    "a switch": (
        ["CREATE POLICY admin ON note FOR SELECT TO {role}"
         " USING (current_setting('app.admin', true) = 'on')"],
        ("{role}", "note", "SELECT", "4 of 8 rows", "all rows"),
    ),
    "a switch in a function": (
        ["CREATE FUNCTION is_admin() RETURNS boolean STABLE LANGUAGE sql"
         " RETURN current_setting('app.admin', true)::boolean",
         "CREATE POLICY admin ON note FOR SELECT TO {role} USING (is_admin())"],
        ("{role}", "note", "SELECT", "4 of 8 rows", "all rows"),
    ),
}  # fmt: skip
"""Changes that give something away: who, what, by what, and how much before and after."""


@pytest.mark.sample(4)
@pytest.mark.parametrize("case", WIDER)
def test_wider(changed: Callable[..., tuple[AccessChange, ...]], ground: Ground, case: str) -> None:
    """What is given away is found, with how much, and blocks."""
    statements, expected = WIDER[case]
    found = changed(*statements)
    told = [(one.role, one.object, one.command, one.before, one.after) for one in found]
    assert tuple(part.format(role=ground.role) for part in expected) in told
    assert all(one.widened for one in found)
    assert all(one.blocking for one in of_access(found, ()))


SILENT = {
    "a view with its reader's rights": [
        "CREATE VIEW my_notes WITH (security_invoker) AS SELECT * FROM note",
        "GRANT SELECT ON my_notes TO {role}",
    ],
    "a function with its caller's rights": [
        "CREATE FUNCTION mine() RETURNS SETOF note LANGUAGE sql AS 'SELECT * FROM note'"
    ],
    "a function with the owner's rights that shows its caller's rows": [
        "CREATE FUNCTION theirs() RETURNS SETOF note SECURITY DEFINER SET search_path = public"
        " LANGUAGE sql AS $$SELECT * FROM note WHERE owner = current_setting('test.me')::int$$",
        "REVOKE ALL ON FUNCTION theirs FROM PUBLIC",
        "GRANT EXECUTE ON FUNCTION theirs TO {role}",
    ],
    "a function that no role may call": [
        "CREATE FUNCTION hidden() RETURNS SETOF secret SECURITY DEFINER SET search_path = public"
        " LANGUAGE sql AS 'SELECT * FROM secret'",
        "REVOKE ALL ON FUNCTION hidden FROM PUBLIC",
    ],
    "the same policy in other words": [
        "DROP POLICY own ON note",
        "CREATE POLICY mine ON note TO {role} USING (NOT owner <> current_setting('test.me')::int)",
    ],
    "a new column": ["ALTER TABLE note ADD COLUMN extra text"],
    "a new table with a grant": [
        "CREATE TABLE extra (id int)",
        "GRANT SELECT ON extra TO {role}",
    ],
    "a trigger function": [
        "CREATE FUNCTION quiet() RETURNS trigger SECURITY DEFINER SET search_path = public"
        " LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
    ],
    "an aggregate over the reader's rows": [
        "CREATE VIEW bodies WITH (security_invoker) AS SELECT string_agg(body, ',') FROM note",
        "GRANT SELECT ON bodies TO {role}",
    ],
    "a view that is never the same": [
        "CREATE VIEW drawn WITH (security_invoker) AS SELECT random() FROM note",
        "GRANT SELECT ON drawn TO {role}",
    ],
    "a function of the caller's rows with an argument like no column": [
        "CREATE FUNCTION nth(n bigint) RETURNS text STRICT SECURITY DEFINER"
        " SET search_path = public LANGUAGE sql AS $$SELECT body FROM note"
        " WHERE owner = current_setting('test.me')::int ORDER BY id OFFSET n LIMIT 1$$",
        "REVOKE ALL ON FUNCTION nth FROM PUBLIC",
        "GRANT EXECUTE ON FUNCTION nth TO {role}",
    ],
    "a function that writes what its caller may": [
        "CREATE FUNCTION wipe() RETURNS void SECURITY DEFINER SET search_path = public"
        " LANGUAGE sql AS $$UPDATE note SET body = random()::text"
        " WHERE owner = current_setting('test.me')::int$$",
        "REVOKE ALL ON FUNCTION wipe FROM PUBLIC",
        "GRANT EXECUTE ON FUNCTION wipe TO {role}",
    ],
    "a new table with row security by user": [
        "CREATE TABLE label (user_id int NOT NULL, name text)",
        "INSERT INTO label VALUES (1, 'one'), (0, 'two')",
        "ALTER TABLE label ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own ON label USING (user_id = current_setting('test.me')::int)",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON label TO {role}",
    ],
    "a new table for reference": [
        "CREATE TABLE country (code text PRIMARY KEY, body text)",
        "INSERT INTO country VALUES ('de', 'Germany')",
        "GRANT SELECT ON country TO {role}",
    ],
    "writing through a view with the writer's rights": [
        "CREATE VIEW notes WITH (security_invoker) AS SELECT id, owner, body FROM note",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO {role}",
    ],
    "nothing for nobody": [
        "ALTER POLICY own ON note USING (owner = NULLIF(current_setting('test.me', true), '')::int)"
    ],
    "a policy that says what it checks": [
        "ALTER POLICY own ON diary WITH CHECK (user_id = current_setting('test.me')::int)"
    ],
    "a switch that narrows": [
        "CREATE POLICY quiet ON note AS RESTRICTIVE FOR SELECT TO {role}"
        " USING (current_setting('app.quiet', true) IS DISTINCT FROM 'on')"
    ],
}
"""Changes that give nothing away."""


@pytest.mark.sample(2)
@pytest.mark.parametrize("case", SILENT)
def test_silent(changed: Callable[..., tuple[AccessChange, ...]], case: str) -> None:
    """A change that gives nothing away is no finding: a false alarm would teach to ignore them."""
    assert changed(*SILENT[case]) == ()


def test_narrower(changed: Callable[..., tuple[AccessChange, ...]], ground: Ground) -> None:
    """What a role can no longer do is told, and blocks nothing."""
    found = changed(
        "CREATE POLICY less ON note AS RESTRICTIVE TO {role} USING (id > 1)",
        "REVOKE UPDATE ON note FROM {role}",
    )
    assert {"SELECT", "UPDATE"} <= {one.command for one in found}
    assert not any(one.widened for one in found)
    assert list(of_access(found, ())) == []
    assert {one.role for one in found} == {ground.role}


def test_maintain(
    changed: Callable[..., tuple[AccessChange, ...]], ground: Ground, main_server: Server
) -> None:
    """Who may lock and rewrite a table, by MAINTAIN, could not before."""
    if int(main_server.version.split(".")[0]) < 17:
        pytest.skip("MAINTAIN is new in PostgreSQL 17")
    (found,) = changed("GRANT MAINTAIN ON secret TO {role}")
    assert (found.role, found.object, found.command) == (ground.role, "secret", "MAINTAIN")
    assert found.widened


ADVICE = {
    "an aggregate over others' rows": "WITH (security_invoker = true)",
    "a function that deletes": "SECURITY INVOKER, or check the caller in it",
    "a copy of a table": "ENABLE ROW LEVEL SECURITY",
    "row security off": "ENABLE ROW LEVEL SECURITY",
    "a second policy": "Narrow the grant or the policy",
}
"""What is advised against a change of WIDER."""


@pytest.mark.sample(1)
@pytest.mark.parametrize("case", ADVICE)
def test_advice(changed: Callable[..., tuple[AccessChange, ...]], case: str) -> None:
    """The advice says what to write, and that it can be accepted."""
    for finding in of_access(changed(*WIDER[case][0]), ()):
        assert ADVICE[case] in finding.advice
        assert "accept it in one of the new revisions, if it is meant" in finding.advice


def test_search_path_of_the_caller(ground: Ground) -> None:
    """A function with its owner's rights and its caller's search_path runs what a caller plants."""
    before = read(ground)
    with session(ground.owner) as opened:
        opened.execute(
            b"CREATE FUNCTION careless() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1'"
        )
    unsafe = read(ground).unsafe - before.unsafe
    assert unsafe == {"careless()"}
    (finding,) = of_access((), unsafe)
    assert (finding.kind, finding.blocking) == ("definer", True)


def test_a_new_role(ground: Ground) -> None:
    """A role that the change makes could do before what PUBLIC could."""
    name = f"review_{secrets.token_hex(4)}"
    before = read(ground)
    with session(ground.superuser) as opened:
        opened.execute(f"CREATE ROLE {name}; GRANT SELECT ON secret TO {name}".encode())
        try:
            (found,) = changes(before, read(ground))
        finally:
            opened.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())
    assert (found.role, found.before, found.after) == (name, "no rows", "all rows")
