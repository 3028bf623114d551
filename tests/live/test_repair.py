"""The SQL that drift prints undoes what was done, and destroys nothing.

The theory: for every mutation of this schema there is SQL, and after it there is no difference. The
SQL of a change that holds rows fails before it drops them. A rename is recognised only where the
catalogs leave no doubt.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.errors import RaiseException
from sqlalchemy import URL, Connection

from migrations import snapshot
from schema.ddl.apply import Sessions, own_names, reach
from schema.live.difference import Severity
from schema.postgres.connection import connect, driver_of
from schema.postgres.embedded import embedded
from schema.project import scripts
from schema.revisions.runner import upgrade
from tests.schema.test_mutations import MUTATIONS
from tests.support.alembic_process import execute
from tests.support.drift import examine, paste


@pytest.fixture(scope="module")
def superuser() -> Iterator[Connection]:
    """A superuser's connection to a database at head, on a server of its own: roles change."""
    with embedded() as started:
        execute(started.owner, "CREATE DATABASE head")
        with connect(started.owner.set(database="head")) as connection:
            upgrade(connection, scripts())
            connection.commit()
        with connect(started.superuser.set(database="head")) as connection:
            yield connection


SAMPLE = 20
"""The quick tier tries one of so many mutations."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if number % SAMPLE == 0 else pytest.mark.slow)
        for number, name in enumerate(MUTATIONS)
    ],
)
def test_every_mutation_can_be_undone(superuser: Connection, name: str) -> None:
    """After the SQL the schema is what the history builds."""
    with superuser.begin() as transaction:
        wanted = snapshot.read(superuser, version_table=True)
        driver_of(superuser).execute(MUTATIONS[name].sql.encode())
        assert snapshot.read(superuser, version_table=True) != wanted
        taken = reach(Sessions(superuser, superuser), wanted, own_names(superuser)).taken
        left = snapshot.difference(wanted, snapshot.read(superuser, version_table=True))
        transaction.rollback()
    assert left == "", [step.statements for step in taken]


ROWS = """
INSERT INTO "user" (id, name, email, "emailVerified")
VALUES ('018f0000-0000-7000-8000-000000000001', 'A', 'a@example.com', true);
INSERT INTO todo (user_id, title, extra)
VALUES ('018f0000-0000-7000-8000-000000000001', 'a', 1)
"""


def test_values_are_not_dropped(head: URL) -> None:
    """A column that holds values is not dropped; an empty one is."""
    execute(head, "ALTER TABLE todo ADD COLUMN extra int")
    paste(head, ROWS)
    script = examine(head).script
    with pytest.raises(RaiseException, match=r"column todo.extra holds values: save what it holds"):
        paste(head, script)
    assert examine(head).differences[0].sentence == "column todo.extra was added"
    paste(head, "UPDATE todo SET extra = NULL")
    paste(head, script)
    assert not examine(head).drifted


def test_values_that_another_type_cannot_keep(head: URL) -> None:
    """A type is changed back only if each value survives it."""
    execute(head, "ALTER TABLE todo ADD COLUMN extra int")
    paste(head, ROWS)
    paste(
        head,
        "ALTER TABLE todo DROP COLUMN extra; ALTER TABLE todo ALTER due_at TYPE text"
        " USING due_at::text; UPDATE todo SET due_at = 'tomorrow'",
    )
    script = examine(head).script
    assert "ALTER COLUMN due_at TYPE timestamp with time zone" in script
    with pytest.raises(Exception, match=r"tomorrow|cannot keep|invalid input"):
        paste(head, script)
    with connect(head) as connection:
        kept = connection.exec_driver_sql("SELECT due_at FROM todo").scalar_one()
    assert kept == "tomorrow"


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("ALTER TABLE tag RENAME COLUMN name TO label", "column tag.name was renamed to label"),
        ("ALTER TABLE todo_tag RENAME TO filed", "table todo_tag was renamed to filed"),
        (
            "ALTER INDEX todo_due_idx RENAME TO todo_late_idx",
            "index todo_due_idx of table todo was renamed to todo_late_idx",
        ),
        (
            "ALTER POLICY todo_owner ON todo RENAME TO todo_self",
            "policy todo_owner of table todo was renamed to todo_self",
        ),
    ],
)
def test_renames(head: URL, statement: str, sentence: str) -> None:
    """A rename is called one, and undone by a rename: no row is lost."""
    execute(head, statement)
    found = examine(head)
    assert [one.sentence for one in found.differences] == [sentence]
    assert found.foreign == []
    paste(head, found.script)
    assert not examine(head).drifted


def test_a_column_whose_name_another_has_taken(head: URL) -> None:
    """It holds the former values: no SQL drops it, and its former name is told."""
    execute(
        head,
        "ALTER TABLE todo RENAME description TO notes",
        "ALTER TABLE todo ADD description text",
    )
    found = examine(head)
    (notes,) = [one for one in found.differences if one.part == "column notes"]
    assert notes.sql is None
    assert "it was description, whose name another column has now" in (notes.obstacle or "")
    assert "DROP COLUMN notes" not in found.script


def test_what_stands_in_the_way(head: URL) -> None:
    """Where no SQL works, PostgreSQL's reason is shown, and no statement that fails."""
    execute(
        head,
        "ALTER TABLE todo ADD COLUMN extra int",
        "CREATE VIEW theirs WITH (security_invoker = true) AS SELECT extra FROM todo",
    )
    found = examine(head)
    (difference,) = found.differences
    assert (difference.sql, found.script) == (None, "")
    assert "other objects depend on it" in (difference.obstacle or "")


def test_what_cannot_be_made_on_a_copy(head: URL) -> None:
    """A difference that the copy cannot be given is listed all the same, without SQL."""
    execute(
        head,
        "ALTER TABLE tag DROP COLUMN name_lower, ADD COLUMN name_lower text NOT NULL"
        " GENERATED ALWAYS AS (upper(name)) STORED",
        "COMMENT ON COLUMN tag.name_lower IS"
        " 'Lower case; unique within its user, and what to search by'",
        "ALTER TABLE tag ADD CONSTRAINT tag_user_id_name_lower_key UNIQUE (user_id, name_lower)",
    )
    found = examine(head)
    assert found.differences
    assert all(one.sql is None for one in found.differences)


def test_a_column_that_took_anothers_place_is_no_rename(head: URL) -> None:
    """Dropped and added, with the same definition: the values are gone, and that is said."""
    execute(
        head,
        "ALTER TABLE todo DROP COLUMN completed_at CASCADE",
        "ALTER TABLE todo ADD COLUMN finished_at timestamptz",
    )
    said = [one.sentence for one in examine(head).differences]
    assert "column todo.completed_at was removed, and its values with it" in said
    assert "column todo.finished_at was added" in said


def test_code_of_the_live_database_is_no_superusers(
    head: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that leaves its role to run a program cannot: the copy's session is the owner's.

    An expression in a default is evaluated when its column is added.
    """
    monkeypatch.undo()  # the copy is on a server of its own, as for a person
    mark = tmp_path / "executed"
    execute(
        head,
        f"""
        CREATE FUNCTION evil() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
        BEGIN
          BEGIN
            RESET ROLE;
            RESET SESSION AUTHORIZATION;
            COPY (SELECT 1) TO PROGRAM 'touch {mark}';
          EXCEPTION WHEN OTHERS THEN NULL;
          END;
          RETURN 1;
        END $$
        """,
        "ALTER TABLE todo ADD COLUMN extra int DEFAULT evil()",
    )
    found = examine(head)
    assert [one.sentence for one in found.differences] == ["column todo.extra was added"]
    assert not mark.exists()


def test_the_worst_comes_first(head: URL) -> None:
    """What endangers isolation stands before data, data before behaviour, comments last."""
    execute(
        head,
        "COMMENT ON TABLE todo IS 'Another'",
        "DROP INDEX todo_due_idx",
        "ALTER TABLE todo ADD COLUMN extra int",
        "ALTER TABLE todo NO FORCE ROW LEVEL SECURITY",
        f'ALTER DATABASE "{head.database}" SET row_security = off',
    )
    found = examine(head)
    order = [one.severity for one in found.differences]
    assert order == sorted(order, key=list(Severity).index)
    assert order[:2] == [Severity.ISOLATION] * 2
    assert order[-1] == Severity.COSMETIC
    paste(head, found.script)
    assert not examine(head).drifted


def test_foreign_objects_are_notes(head: URL) -> None:
    """What no revision makes is named, and is no drift."""
    execute(head, "CREATE SCHEMA billing", "CREATE TABLE billing.invoice (id int)")
    found = examine(head)
    assert not found.drifted
    assert found.foreign == ["schema billing", "table billing.invoice"]
