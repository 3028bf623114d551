"""Which models work on which schema, shown by the statements that break.

The theory: a statement that the ORM executes breaks exactly where a change of the schema takes away
what it needs, as each role that it worked for, and says which side must be deployed first. Each
case has a table of its own in one change of the schema, so that it also shows that the other
changes are not blamed on it.
"""

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import indent

import pytest
from sqlalchemy import URL, Connection

from schema.access.declared import declared_samples
from schema.errors import CannotRunError
from schema.generate.files import version_text
from schema.postgres.connection import connect, driver_of
from schema.postgres.scratch import Server
from schema.project import ROOT, scripts
from schema.review import findings, lints
from schema.review.models import statements as model_statements
from schema.review.models.compatibility import Compatibility, breaks, try_statements
from schema.review.models.samples import sample_rows
from schema.review.models.start_up import application_login, try_start_up
from schema.review.models.statements import (
    ModelStatement,
    Release,
    export_models,
    new_models,
    statements_of,
)
from schema.review.result import Break, Lint, Statement, Step, Transaction
from schema.revisions import merged
from schema.revisions.history import revisions_oldest_first
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

REFUSING = (
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$"
    " BEGIN RAISE EXCEPTION 'no %', NEW.a; END $$"
)

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
    Case(  # only a commit, which no attempt reaches, would fire the trigger
        "deferred",
        "CREATE CONSTRAINT TRIGGER deferred AFTER INSERT OR UPDATE ON t"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
        breaks=_each("base", "INSERT UPDATE", "a trigger or a function raised an error"),
    ),
    Case(  # of many rows only the longest, or the largest, breaks
        "longest",
        "ALTER TABLE t ADD CHECK (char_length(a) <= 49) NOT VALID",
        value="a'), ('bb'), (repeat('c', 50)), ('d'), ('eee'), ('ffff'), ('g",
        breaks=_each("base", "INSERT UPDATE", "violates check constraint"),
    ),
    Case(
        "extreme",
        "ALTER TABLE t ADD CHECK (a > -5 AND a < 12) NOT VALID",
        old="a integer NOT NULL",
        base="a = mapped_column(Integer, nullable=False)",
        new="a = mapped_column(Integer, nullable=False)",
        value="1'), ('2'), ('3'), ('12'), ('4'), ('-7'), ('5",
        breaks=_each("base", "INSERT UPDATE", "violates check constraint"),
    ),
    Case(  # what succeeds newly is no break of new models that have not changed
        "granted",
        f"GRANT ALL ON t TO {BOTH}",
        roles="owner",
    ),
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
        execute(connection, "", REFUSING)
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
    trigger = "CREATE TRIGGER refuse BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION refuse()"
    with connect(empty) as connection:
        for table in ("kept", "raising"):
            execute(connection, table, "CREATE TABLE t (id uuid PRIMARY KEY, a text)")
            execute(connection, table, "INSERT INTO t VALUES (gen_random_uuid(), 'hunter2')")
        execute(connection, "raising", REFUSING)
        execute(connection, "raising", trigger)
        outcomes = try_statements(connection, statements, sample_rows(connection))
    said = {error for (_, role), errors in outcomes.items() if role == "owner" for error in errors}
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


PERMISSION = "permission denied for table todo"
NO_COLUMN = 'column "a" does not exist'
NOT_NULL = 'null value in column "b" of relation "todo" violates not-null constraint'
START = Break("base", "assert_compatible", "start-up", APPLICATION, "todo has no column a")


def broken(error: str, command: str = "UPDATE", *, lasting: bool = True) -> Break:
    """Make a break of the base's models on the table todo."""
    return Break("base", "todo", command, APPLICATION, error, lasting)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (PERMISSION, "Grant it to the role, or keep the privilege."),
        (NO_COLUMN, "Keep the old name or column until no running release uses it"),
        (NOT_NULL, "Add it nullable or with a default first"),
        ('new row violates check constraint "c"', "Let the running release's values in"),
        ("value too long for type character varying(4)", "Let the running release's values in"),
        ("column todo.a is integer, and the models read text", "Add a new column beside it."),
        ("operator does not exist: text = uuid", "Add a new column beside it."),
        ("a trigger or a function raised an error", "Change the trigger or function."),
        ("another error", "Do it in two releases: first a schema that"),
    ],
)
def test_the_advice_names_the_cause(error: str, advice: str) -> None:
    """What no order of deployment avoids is avoided by its cause; otherwise the order is enough."""
    (found,) = findings.of_breaks([broken(error)])
    assert found.advice.startswith(advice)
    assert found.blocking
    (found,) = findings.of_breaks([broken(error, lasting=False)])
    assert found.advice == "Deploy the code before the migration."
    assert not found.blocking
    new = Break("new", "other", "SELECT", APPLICATION, NO_COLUMN)
    (found,) = findings.of_breaks([broken(error, lasting=False), new])
    assert found.advice.startswith(advice)
    assert found.blocking


def test_each_command_has_its_own_error() -> None:
    """A sentence names the commands that fail with the same error; two errors are enough."""
    (found,) = findings.of_breaks(
        [
            broken(NO_COLUMN, "SELECT"),
            broken(NO_COLUMN),
            broken(NOT_NULL, "INSERT"),
            broken(PERMISSION, "DELETE"),
        ]
    )
    assert found.message == (
        f"The application that is running cannot SELECT, UPDATE todo any more: {NO_COLUMN}."
        f" It cannot INSERT todo any more: {NOT_NULL}."
    )
    assert found.advice.startswith("Keep the old name")
    assert "Add it nullable" in found.advice


def test_a_start_that_repeats_a_table_is_no_finding() -> None:
    """That the application cannot start is told where nothing else tells it, or it blocks alone."""
    table = broken(NO_COLUMN, lasting=False)

    def told(*broken: Break) -> list[str]:
        return [one.object for one in findings.of_breaks(broken)]

    assert told(START, table) == ["todo"]
    assert told(START) == ["assert_compatible"]
    assert told(replace(START, lasting=True), table) == ["assert_compatible", "todo"]
    (found,) = findings.of_breaks([START])
    assert found.message.startswith("The application that is running cannot start any more: todo")


@pytest.mark.usefixtures("roles")
def test_start_up_says_the_same_in_each_run(empty: URL, tmp_path: Path) -> None:
    """The login has a name of its own in each run, and a message may end with a full stop."""
    models = write_models(tmp_path, {})
    saying = """
def assert_compatible(connection):
    (name,) = connection.exec_driver_sql("SELECT current_user").one()
    raise RuntimeError(f'The role "{name}", {name}, is none.')
"""
    with (models / "__init__.py").open("a", encoding="utf-8") as file:
        file.write(saying)
    with Release(models) as release, application_login(empty) as login:
        found = try_start_up(release, login)
    login_name = "the application's login"
    assert list(found.values()) == [(f"The role {login_name}, {login_name}, is none",)]


def test_the_new_models_are_those_of_the_new_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their version and history are what `schema snapshot` would write; the checkout's stay."""
    history = (ROOT / "models" / "version.py").read_text(encoding="utf-8")
    revisions = [*re.findall(r'^    "(.*)",$', history, re.MULTILINE), "feedfacefeed"]
    models = new_models(tmp_path / "review", revisions)
    version = (models / "version.py").read_text(encoding="utf-8")
    assert version == version_text(history, revisions)
    assert '+feedfacefeed"' in version
    assert '    "feedfacefeed",\n)' in version
    assert (ROOT / "models" / "version.py").read_text(encoding="utf-8") == history
    assert (models / "startup.py").exists()
    assert models != tmp_path / "review" / "models"
    monkeypatch.setattr(model_statements, "ROOT", tmp_path / "none")
    assert statements_of(new_models(tmp_path / "without", revisions)) == ()


def lint(sql: str, breaks: Sequence[Break] | None) -> list[Lint]:
    """Lint a statement that ran in the newest revision."""
    revision = revisions_oldest_first(scripts())[-1]
    ran = Transaction((Statement(sql, 1, 0.0),), alone=False, seconds=0.0)
    return lints.of_steps([Step(revision.revision, "upgrade", (ran,), 0.0)], [revision], breaks)


@pytest.mark.parametrize(
    ("rule", "sql"),
    [
        ("renaming-column", "ALTER TABLE public.todo RENAME COLUMN a TO b"),
        ("renaming-table", 'ALTER TABLE "todo" RENAME TO task'),
        ("ban-drop-column", "ALTER TABLE ToDo DROP COLUMN a"),
        ("ban-drop-table", "DROP TABLE todo"),
        ("adding-required-field", "ALTER TABLE todo ADD COLUMN b text NOT NULL"),
        ("changing-column-type", "ALTER TABLE todo ALTER COLUMN a TYPE text"),
    ],
)
def test_lints_about_running_code(rule: str, sql: str) -> None:
    """A break of the base on the same table confirms the lint; none at all contradicts it."""

    def status(breaks: Sequence[Break] | None) -> str:
        return next(one.status for one in lint(sql, breaks) if one.rule == rule)

    other = replace(broken(NO_COLUMN), table="todo_label")
    assert status([other, broken(NO_COLUMN)]) == "confirmed"
    assert status([other]) == "contradicted"
    assert status([replace(broken(NO_COLUMN), models="new")]) == "contradicted"
    assert status([]) == "contradicted"
    if rule != "changing-column-type":  # of which a run also shows whether it rewrites
        assert status(None) == "unseen"


def test_a_parameter_is_no_syntax_error() -> None:
    """What PostgreSQL has executed has no syntax error, even if squawk reads no parameters."""
    assert lint("UPDATE todo SET title = 'a' WHERE user_id = %(user_id)s", None) == []
