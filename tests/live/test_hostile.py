"""A live database that means harm: to the machine that compares, to its rows, to their isolation.

The theory: nothing of a live database runs as a superuser or reaches a terminal as a command; the
SQL to paste changes what it names and nothing else, and no value is lost by it; what gives rows
away is drift, however it does so.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from rich.console import Console
from sqlalchemy import URL

from schema.cli import drift as drift_page
from schema.live import doctor
from schema.live.difference import Severity
from schema.postgres.connection import connect, driver_of
from schema.postgres.embedded import OWNER, Embedded, embedded
from schema.project import scripts
from schema.revisions.history import revisions_oldest_first
from schema.revisions.runner import upgrade
from tests.support.alembic_process import execute
from tests.support.drift import examine, paste

REVISIONS = [one.revision for one in revisions_oldest_first(scripts())]
USER = "018f0000-0000-7000-8000-000000000001"
ROWS = f"""
INSERT INTO "user" (id, name, email, "emailVerified") VALUES ('{USER}', 'A', 'a@example.com', true);
INSERT INTO todo (user_id, title, description, due_at)
VALUES ('{USER}', 'a title', 'a description', '2026-07-01 12:00+00')
"""


@pytest.fixture(scope="module")
def own_server() -> Iterator[Embedded]:
    """A server whose roles may change, with a database at head and one a revision earlier."""
    with embedded() as started:
        for name, revisions in (("head", None), ("earlier", REVISIONS[:-1])):
            execute(started.owner, f"CREATE DATABASE {name}")
            with connect(started.owner.set(database=name)) as connection:
                upgrade(connection, scripts(), revisions)
                connection.commit()
        yield started


@contextmanager
def clone(server: Embedded, template: str) -> Iterator[tuple[URL, URL]]:
    """Make a database; its URLs as the owner and as a superuser."""
    execute(server.superuser, f"CREATE DATABASE victim TEMPLATE {template} OWNER {OWNER}")
    execute(server.superuser, "REVOKE TEMPORARY ON DATABASE victim FROM PUBLIC")
    try:
        yield server.owner.set(database="victim"), server.superuser.set(database="victim")
    finally:
        execute(server.superuser, "DROP DATABASE victim WITH (FORCE)")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a server of the command's own for copies, as for a person."""
    monkeypatch.undo()


def isolation(url: URL) -> list[str]:
    """What drift says of isolation."""
    return [one.sentence for one in examine(url).differences if one.severity == Severity.ISOLATION]


# ── the machine that compares ─────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("alone")
def test_a_setting_that_holds_a_program(own_server: Embedded, tmp_path: Path) -> None:
    """The owner can store anything in a search_path; it stays a name."""
    mark = tmp_path / "executed"
    program = f"public;COPY/**/(SELECT/**/1)/**/TO/**/PROGRAM/**/'id>{mark}'"
    with clone(own_server, "head") as (owner, superuser):
        with connect(superuser, autocommit=True) as connection:
            driver = driver_of(connection)
            driver.execute("SELECT set_config('search_path', %s, false)", (program,))
            driver.execute("ALTER ROLE todo_app SET search_path FROM CURRENT")
        try:
            assert examine(owner).drifted
        finally:
            execute(own_server.superuser, "ALTER ROLE todo_app RESET search_path")
    assert not mark.exists()


@pytest.mark.usefixtures("alone")
def test_an_event_trigger_that_looks_for_a_superuser(own_server: Embedded, tmp_path: Path) -> None:
    """The trial of a deploy makes it, and only the owner's session sets it off."""
    mark = tmp_path / "executed"
    with clone(own_server, "earlier") as (owner, superuser):
        paste(
            superuser,
            f"""
            CREATE TYPE ty AS (a int); CREATE TABLE typed OF ty; ALTER TABLE typed OWNER TO {OWNER};
            GRANT SELECT ON typed TO todo_app;
            CREATE FUNCTION ev() RETURNS event_trigger LANGUAGE plpgsql AS $f$ BEGIN
              IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
                COPY (SELECT 1) TO PROGRAM 'touch {mark}';
              END IF;
            END $f$;
            CREATE EVENT TRIGGER evt ON ddl_command_start EXECUTE FUNCTION ev()
            """,
        )
        mark.unlink(missing_ok=True)
        examined = doctor.examine(owner, scripts())
        checks = doctor.compared(examined, scripts(), lambda _step: None)
    assert {check.name for check in checks} >= {"next deploy"}
    assert not mark.exists()


@pytest.mark.slow
def test_names_that_a_terminal_would_obey(head: URL) -> None:
    """Control and direction characters are shown as escapes."""
    execute(head, 'ALTER TABLE todo ADD COLUMN "a\x1b]0;pwn\x07\x1b[31m\u202ered" int')
    console = Console(width=200, soft_wrap=True)
    with console.capture() as captured:
        console.print(drift_page.page(examine(head)))
    assert not set(captured.get()) & {"\x1b", "\x07", "\u202e"}
    assert r"\u001b" in captured.get()


# ── the SQL to paste ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_row_of_nulls_is_a_value(head: URL) -> None:
    """For a composite type, IS NOT NULL is false if any field is NULL."""
    paste(head, f"{ROWS}; CREATE TYPE pair AS (a int, b int); ALTER TABLE todo ADD extra pair")
    script = examine(head).script
    for value in ("ROW(7, NULL)", "ROW(NULL, NULL)"):
        execute(head, f"UPDATE todo SET extra = {value}::pair")
        with pytest.raises(psycopg.errors.RaiseException, match="holds values"):
            paste(head, script)


@pytest.mark.parametrize("kind", ["timestamp", "date"])
def test_the_time_zone_is_not_guessed(head: URL, kind: str) -> None:
    """A type with a time zone and one without: no SQL, for it would shift values in silence."""
    paste(head, f"{ROWS}; ALTER TABLE todo ALTER due_at TYPE {kind}")
    found = examine(head)
    (difference,) = [one for one in found.differences if one.part == "column due_at"]
    assert difference.sql is None
    assert difference.obstacle
    assert "ALTER COLUMN due_at TYPE" not in found.script


@pytest.mark.slow
def test_a_table_of_that_name_in_another_schema(head: URL) -> None:
    """The SQL changes the table in public, whatever the search_path of who pastes it."""
    execute(
        head,
        f"CREATE SCHEMA {OWNER}",
        f"CREATE TABLE {OWNER}.todo (a int, extra int)",
        "ALTER TABLE public.todo ADD COLUMN extra int",
    )
    paste(head, f'SET search_path = "$user", public; {examine(head).script}')
    assert not examine(head).drifted
    execute(head, f"SELECT extra FROM {OWNER}.todo")


@pytest.mark.slow
def test_columns_that_have_changed_places(head: URL) -> None:
    """Two columns with each other's names are not repaired into each other."""
    paste(
        head,
        "ALTER TABLE todo RENAME title TO between; ALTER TABLE todo RENAME description TO title;"
        " ALTER TABLE todo RENAME between TO description",
    )
    found = examine(head)
    columns = [
        one for one in found.differences if one.part in {"column title", "column description"}
    ]
    assert len(columns) == 2
    assert all(one.sql is None and one.obstacle for one in columns)
    assert "ALTER COLUMN title" not in found.script


# ── what gives rows away ──────────────────────────────────────────────────────────────────────────

GIVEN_AWAY = {
    "aggregate": """
        CREATE FUNCTION step(text, text) RETURNS text LANGUAGE sql SECURITY DEFINER
          AS 'SELECT string_agg(title, '','') FROM public.todo';
        REVOKE EXECUTE ON FUNCTION step(text, text) FROM PUBLIC;
        CREATE AGGREGATE leak(text) (SFUNC = step, STYPE = text)""",
    "trigger": """
        CREATE TABLE copybook (what text); GRANT SELECT, INSERT ON copybook TO todo_app;
        CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
          AS 'BEGIN NEW.what := (SELECT max(title) FROM public.todo); RETURN NEW; END';
        REVOKE EXECUTE ON FUNCTION fill() FROM PUBLIC;
        CREATE TRIGGER fill BEFORE INSERT ON copybook FOR EACH ROW EXECUTE FUNCTION fill()""",
    "parent": """
        CREATE TABLE parent (title text NOT NULL); GRANT SELECT ON parent TO todo_app;
        ALTER TABLE todo INHERIT parent""",
    "heir": "CREATE TABLE heir () INHERITS (todo); GRANT ALL ON heir TO todo_app",
    "identity": f"ALTER DATABASE victim SET app.user_id = '{USER}'",
    "search_path": "ALTER DATABASE victim SET search_path = evil, public",
    "parameter": "GRANT SET ON PARAMETER session_replication_role TO todo_app",
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", GIVEN_AWAY)
def test_what_gives_rows_away(
    own_server: Embedded, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is drift, and called a matter of isolation."""
    monkeypatch.undo()
    with clone(own_server, "head") as (owner, superuser):
        assert isolation(owner) == []
        paste(superuser if name in {"identity", "parameter"} else owner, GIVEN_AWAY[name])
        try:
            assert isolation(owner)
        finally:
            execute(
                own_server.superuser,
                "REVOKE ALL ON PARAMETER session_replication_role FROM todo_app",
            )
