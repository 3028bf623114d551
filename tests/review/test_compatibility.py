"""Which models work on which schema, shown by the statements that break.

The theory: a statement that the ORM executes breaks exactly where a change of the schema takes away
what it needs, as each role that it worked for, and says which side must be deployed first. Each
case has a table of its own in one change of the schema, so that it also shows that the other
changes are not blamed on it.
"""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent

import pytest
from sqlalchemy import URL, Connection

from schema.access.declared import declared_samples
from schema.errors import CannotRunError
from schema.postgres.connection import connect, driver_of
from schema.postgres.scratch import Server
from schema.project import ROOT
from schema.review.models.compatibility import Compatibility, breaks, sample_rows, try_statements
from schema.review.models.statements import ModelStatement, export_models, statements_of
from schema.review.result import Break
from schema.revisions import merged
from schema.roles import APPLICATION, BETTER_AUTH
from schema.rows.generator import fill_database

HEADER = """
from sqlalchemy import ARRAY, Integer, String, Text, Uuid, text
from sqlalchemy.orm import DeclarativeBase, mapped_column

class Base(DeclarativeBase):
    pass

metadata = Base.metadata
"""

A = "a = mapped_column(Text, nullable=False)"
B = "\nb = mapped_column(Text)"
BOTH = f"{APPLICATION}, {BETTER_AUTH}"

type Expected = dict[tuple[str, str], str]
"""A part of the error, by whose models break and the command."""


@dataclass(frozen=True)
class Case:
    """A table, how its schema and its model change, and what breaks."""

    table: str
    change: str = ""
    """SQL about the table `t`."""
    base: str = A
    """The attributes beside `id`; "" for no model."""
    new: str = A
    old: str = "a text NOT NULL"
    """The columns beside `id`; "" for no table."""
    value: str = "12"
    """Of column a."""
    breaks: Expected = field(default_factory=dict)
    roles: str = BOTH


def _each(models: str, commands: str, error: str) -> Expected:
    return {(models, command): error for command in commands.split()}


CASES = [
    Case("kept"),
    Case("untyped_kept", base="a = mapped_column(String(40))", new="a = mapped_column(String)"),
    Case(
        "optional",
        "ALTER TABLE t ADD b text",
        new=A + B,
        breaks=_each("new", "SELECT INSERT UPDATE", "does not exist"),
    ),
    Case(
        "required",
        "ALTER TABLE t ADD b text NOT NULL DEFAULT 'x'; ALTER TABLE t ALTER b DROP DEFAULT",
        new=f"{A}\nb = mapped_column(Text, nullable=False)",
        breaks=_each("base", "INSERT", 'null value in column "b"')
        | _each("new", "SELECT INSERT UPDATE", "does not exist"),
    ),
    Case(
        "dropped_column",
        "ALTER TABLE t DROP b",
        old="a text NOT NULL, b text",
        base=A + B,
        breaks=_each("base", "SELECT INSERT UPDATE", "does not exist"),
    ),
    Case(
        "renamed",
        "ALTER TABLE t RENAME a TO b",
        new="b = mapped_column(Text, nullable=False)",
        breaks=_each("base", "SELECT INSERT UPDATE", "a")
        | _each("new", "SELECT INSERT UPDATE", "b"),
    ),
    Case(
        "narrowed",
        "ALTER TABLE t ALTER a TYPE varchar(4) USING left(a, 4)",
        old="a varchar(40) NOT NULL",
        value="a long value",
        base="a = mapped_column(String(40), nullable=False)",
        new="a = mapped_column(String(4), nullable=False)",
        breaks=_each("base", "INSERT UPDATE", "value too long"),
    ),
    Case("checked", "ALTER TABLE t ADD CHECK (length(a) < 5)"),
    Case(
        "forbidden",
        "UPDATE t SET a = 'new'; ALTER TABLE t ADD CHECK (a <> '12')",
        breaks=_each("base", "INSERT UPDATE", "violates check constraint"),
    ),
    Case(
        "revoked",
        f"REVOKE UPDATE ON t FROM {APPLICATION}",
        breaks=_each("base", "UPDATE", "permission denied for table"),
        roles=APPLICATION,
    ),
    Case(
        "revoked_column",
        f"REVOKE SELECT ON t FROM {BETTER_AUTH}; GRANT SELECT (id) ON t TO {BETTER_AUTH}",
        breaks=_each("base", "SELECT", "permission denied for table"),
        roles=BETTER_AUTH,
    ),
    Case(
        "text_to_integer",
        "ALTER TABLE t ALTER a TYPE integer USING a::integer",
        new="a = mapped_column(Integer, nullable=False)",
        breaks=_each("base", "INSERT UPDATE", "is of type integer but expression is of type text")
        | _each("base", "SELECT", "is integer, and the models read text")
        | _each("new", "SELECT", "is text, and the models read integer"),
    ),
    Case(
        "widened",
        "ALTER TABLE t ALTER a TYPE bigint",
        old="a integer NOT NULL",
        base="a = mapped_column(Integer, nullable=False)",
        new="a = mapped_column(Integer, nullable=False)",
    ),
    Case(  # a domain is read as its base type
        "domain",
        "ALTER TABLE t ALTER a TYPE bigint",
        old="a information_schema.cardinal_number NOT NULL",
        base="a = mapped_column(Integer, nullable=False)",
        new="a = mapped_column(Integer, nullable=False)",
    ),
    Case(  # a column that is retiring is no attribute, and may go
        "unmapped",
        "ALTER TABLE t DROP b",
        old="a text NOT NULL, b text",
        base=A + B + '\n__mapper_args__ = {"exclude_properties": ["b"]}',
    ),
    Case(
        "gone",
        "DROP TABLE t",
        new="",
        breaks=_each("base", "SELECT INSERT UPDATE DELETE", "does not exist"),
    ),
    Case(
        "fresh",
        "CREATE TABLE t (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), a text NOT NULL);"
        f" GRANT ALL ON t TO {BOTH}; INSERT INTO t (a) VALUES ('12')",
        old="",
        base="",
        breaks=_each("new", "SELECT INSERT UPDATE DELETE", "does not exist"),
    ),
    Case(
        "default_removed",
        "ALTER TABLE t ALTER b DROP DEFAULT",
        old="a text NOT NULL, b text NOT NULL DEFAULT 'x'",
        base=f"{A}\nb = mapped_column(Text, nullable=False, server_default=text(\"'x'\"))",
        new=f"{A}\nb = mapped_column(Text, nullable=False)",
        breaks=_each("base", "INSERT", 'null value in column "b"'),
    ),
    Case(  # the ORM names a column without a default, and writes NULL
        "no_longer_null",
        "UPDATE t SET b = 'x'; ALTER TABLE t ALTER b SET DEFAULT 'x', ALTER b SET NOT NULL",
        old="a text NOT NULL, b text",
        base=A + B,
        new=f"{A}\nb = mapped_column(Text, nullable=False, server_default=text(\"'x'\"))",
        breaks=_each("base", "INSERT UPDATE", 'null value in column "b"'),
    ),
    Case(
        "owners_alone",
        "ALTER TABLE t DROP b",
        old="a text NOT NULL, b text",
        base=A + B,
        breaks=_each("base", "SELECT INSERT UPDATE", "does not exist"),
        roles="owner",
    ),
    Case(
        "retyped_key",
        "ALTER TABLE t ALTER id TYPE text",
        breaks=_each("base", "UPDATE DELETE", "operator does not exist: text = uuid")
        | _each("base", "SELECT", "is text, and the models read uuid"),
    ),
    Case(
        "arrays",
        "ALTER TABLE t ALTER a TYPE bigint[]; ALTER TABLE t DROP b",
        old="a integer[] NOT NULL, b text[]",
        value="{1}",
        base="a = mapped_column(ARRAY(Integer), nullable=False)\nb = mapped_column(ARRAY(String))",
        new="a = mapped_column(ARRAY(Integer), nullable=False)",
        breaks=_each("base", "SELECT INSERT UPDATE", "does not exist"),
    ),
    Case(  # wrong on both schemas, which must not hide what breaks
        "misread",
        "ALTER TABLE t DROP b",
        old="a integer NOT NULL, b text",
        base="a = mapped_column(Text, nullable=False)" + B,
        breaks=_each("base", "SELECT UPDATE", "does not exist"),
    ),
    Case('50% "off":x', "ALTER TABLE t ADD b text"),
]


def write_models(folder: Path, attributes: dict[str, str]) -> Path:
    """Write a package of models with these attributes of each table."""
    models = folder / "models"
    models.mkdir(parents=True)
    key = 'id = mapped_column(Uuid, primary_key=True, server_default=text("gen_random_uuid()"))'
    classes = [
        f"class T{number}(Base):\n    __tablename__ = {table!r}\n"
        f"    {key}\n"
        f"{indent(body, '    ')}\n"
        for number, (table, body) in enumerate(attributes.items())
        if body
    ]
    (models / "__init__.py").write_text("\n".join([HEADER, *classes]), encoding="utf-8")
    return models


def execute(connection: Connection, table: str, script: str) -> None:
    """Execute statements about the table `t`, and commit."""
    quoted = '"' + table.replace('"', '""') + '"'
    words = [quoted if word == "t" else word for word in script.split(" ")]
    driver = driver_of(connection)
    driver.execute(" ".join(words).encode())
    driver.commit()


@dataclass(frozen=True)
class Tried:
    """What all cases together led to."""

    found: tuple[Break, ...]
    count: int
    not_covered: list[str]


@pytest.fixture(scope="module")
def roles(head_template: URL) -> None:
    """Let the group roles exist, which the migrations make."""
    assert head_template


@pytest.fixture(scope="module")
def tried(server: Server, roles: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    """Try both models of all cases on both schemas."""
    assert roles is None
    folder = tmp_path_factory.mktemp("releases")
    base = write_models(folder / "base", {case.table: case.base for case in CASES})
    new = write_models(folder / "new", {case.table: case.new for case in CASES})
    with server.database() as url, connect(url) as connection:
        for case in CASES:
            if case.old:
                columns = f"id uuid PRIMARY KEY DEFAULT gen_random_uuid(), {case.old}"
                execute(connection, case.table, f"CREATE TABLE t ({columns})")
                execute(connection, case.table, f"INSERT INTO t (a) VALUES ('{case.value}')")
                if case.roles != "owner":
                    execute(connection, case.table, f"GRANT ALL ON t TO {BOTH}")
        with Compatibility(base, new) as compatibility:
            compatibility.before(connection)
            for case in CASES:
                if case.change:
                    execute(connection, case.table, case.change)
            found = compatibility.after(connection)
        yield Tried(found, compatibility.count, compatibility.not_covered)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.table)
def test_what_breaks(tried: Tried, case: Case) -> None:
    """Each change of a table breaks the statements that it must, and no others."""
    found = [one for one in tried.found if one.table == case.table]
    assert {(one.models, one.command) for one in found} == case.breaks.keys()
    for one in found:
        assert case.breaks[one.models, one.command] in one.error
        assert one.role == case.roles


@pytest.mark.slow
def test_everything_is_tried(tried: Tried) -> None:
    """Each of the three roles tries each statement; each break is reported once."""
    assert tried.not_covered == []
    assert tried.count >= 3 * 4 * 2 * (len(CASES) - 2)
    assert len(set(tried.found)) == len(tried.found)


@pytest.fixture(scope="module")
def statements(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelStatement, ...]:
    """The statements on a few tables."""
    attributes = {"kept": "a = mapped_column(Uuid, nullable=False)", "raising": A, "missing": A}
    return statements_of(write_models(tmp_path_factory.mktemp("few"), attributes))


@pytest.mark.usefixtures("roles")
def test_errors_have_no_values(empty: URL, statements: tuple[ModelStatement, ...]) -> None:
    """A value of a row is in no message: neither PostgreSQL's nor one of a function of ours."""
    raising = (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN RAISE EXCEPTION 'no %', NEW.a; END $$"
    )
    trigger = "CREATE TRIGGER refuse BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION refuse()"
    with connect(empty) as connection:
        for table in ("kept", "raising"):
            execute(connection, table, "CREATE TABLE t (id uuid PRIMARY KEY, a text)")
            execute(connection, table, "INSERT INTO t VALUES (gen_random_uuid(), 'hunter2')")
        execute(connection, "raising", raising)
        execute(connection, "raising", trigger)
        outcomes = try_statements(connection, statements, sample_rows(connection))
    said = {error for (_, role), error in outcomes.items() if role == "owner"}
    assert 'invalid input syntax for type uuid: "…"' in said
    assert "a trigger or a function raised an error" in said
    assert not any("hunter2" in error for error in said)


@pytest.mark.usefixtures("roles")
def test_an_empty_table_is_no_break(empty: URL, statements: tuple[ModelStatement, ...]) -> None:
    """An INSERT without a row to take values from is left out; a missing table is not."""
    with connect(empty) as connection:
        for table in ("kept", "raising"):
            execute(connection, table, "CREATE TABLE t (id uuid PRIMARY KEY, a uuid NOT NULL)")
        execute(connection, "raising", "ALTER TABLE t ALTER a TYPE text")
        outcomes = try_statements(connection, statements, {})
    inserted = {statement.table for statement, _ in outcomes if statement.command == "INSERT"}
    assert inserted == {"missing"}
    assert breaks(outcomes, outcomes, outcomes, outcomes) == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise ImportError(f'not in {__file__}')", "ImportError: not in models/__init__.py"),
        ("import os; os._exit(3)", "exit code 3"),
    ],
)
def test_releases_without_readable_models(
    empty: URL, tmp_path: Path, program: str, why: str
) -> None:
    """Without models nothing breaks; if they cannot be read, one sentence says why.

    It has no traceback and no path of this machine.
    """
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text(program, encoding="utf-8")
    with (
        Compatibility(tmp_path / "none", tmp_path / "models") as compatibility,
        connect(empty) as connection,
    ):
        compatibility.before(connection)
        assert compatibility.after(connection) == ()
    assert compatibility.count == 0
    assert compatibility.not_covered == [f"The new models cannot be read: {why}."]


def test_the_models_of_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What git copies is the commit's and not the checkout's; a commit without models has none."""
    repository = tmp_path / "repository"
    repository.mkdir()
    monkeypatch.setattr(merged, "ROOT", repository)
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")

    def commit() -> None:
        merged.git("add", "--all")
        merged.git(*author, "commit", "--quiet", "--allow-empty", "--message=A commit")

    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    commit()
    models = write_models(repository, {"old": A})
    commit()
    (models / "__init__.py").write_text("raise SystemExit(1)", encoding="utf-8")
    for name in ("without", "with"):
        (tmp_path / name).mkdir()
    assert statements_of(export_models("HEAD~1", tmp_path / "without")) == ()
    found = statements_of(export_models("HEAD", tmp_path / "with"))
    assert {one.table for one in found} == {"old"}
    with pytest.raises(CannotRunError, match="The base's models cannot be read"):
        export_models("no-such-commit", tmp_path)


@pytest.mark.slow
def test_these_models(head: URL) -> None:
    """The checkout's models work on their own schema; a start-up assertion fails on another one."""
    fill_database(head, declared_samples(), each=2, owners=2)
    with (
        Compatibility(ROOT / "models", ROOT / "models") as same,
        connect(head) as connection,
    ):
        same.before(connection)
        assert same.after(connection) == ()
        assert same.not_covered == []
        assert same.count > 100
        # Of a later revision the assertion asks no more than that the columns are there.
        execute(connection, "alembic_version", "UPDATE t SET version_num = 'unknown'")
        execute(connection, "todo", "ALTER TABLE t DROP COLUMN description")
        found = same.after(connection)
    of_app = {(one.table, one.command) for one in found if APPLICATION in one.role}
    commands = ("SELECT", "INSERT", "UPDATE")
    assert of_app == {("assert_compatible", "start-up"), *(("todo", one) for one in commands)}
    assert "todo.description" in next(one.error for one in found if one.command == "start-up")
