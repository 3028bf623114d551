"""The SQL lint reports unsafe and badly written statements of revisions.

The theory: for each rule a bad revision gets a finding with its file, line and statement, and a
good revision passes. A finding is accepted only with a reason, and unused comments are reported.
"""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import URL

from schema.checks import sql_lint as lint
from schema.checks.result import Failure
from schema.postgres.scratch import Server
from schema.project import ROOT
from schema.sql_lint import cache, findings, squawk
from schema.sql_lint.capture import Direction, Statement
from tests.support.repo_copy import CHECKS, COMMAND, Checkout, copy_to, sql

FIRST = '''"""Create note.

WHY: a test needs a table with rows.
"""

import sqlalchemy as sa
from alembic import op

revision = "111111111111"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "note",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name=op.f("note_pkey")),
    )


def downgrade() -> None:
    op.drop_table("note")
'''

SECOND = '''"""Change note.

WHY: a test needs a revision that does this.{docstring}
"""

import datetime
import uuid

import sqlalchemy as sa
from alembic import op

revision = "222222222222"
down_revision = "111111111111"

NOTE = sa.table(
    "note",
    sa.column("id", sa.Uuid()),
    sa.column("body", sa.Text()),
    sa.column("position", sa.BigInteger()),
    sa.column("at", sa.TIMESTAMP(timezone=True)),
)


def upgrade() -> None:
{upgrade}


def downgrade() -> None:
{downgrade}
'''

FILE = "2099_01_01_0001_222222222222_change_note.py"


@dataclass(frozen=True)
class History:
    """A history of two revisions, and its lint."""

    root: Path
    url: URL

    @property
    def second(self) -> Path:
        """The revision under test."""
        return self.root / "migrations" / "versions" / FILE

    def write(self, upgrade: str, downgrade: str = "pass", docstring: str = "") -> None:
        """Write the revision under test."""
        up, down = (
            textwrap.indent(textwrap.dedent(body).strip(), "    ") for body in (upgrade, downgrade)
        )
        text = SECOND.format(upgrade=up, downgrade=down, docstring=docstring)
        self.second.write_text(text, encoding="utf-8")

    def line(self, fragment: str) -> int:
        """Return the number of the only line of the revision under test that contains the text."""
        lines = self.second.read_text(encoding="utf-8").splitlines()
        (number,) = (n for n, text in enumerate(lines, start=1) if fragment in text)
        return number

    def lint(self) -> list[Failure]:
        """Lint the history as the check does."""
        outcome = lint.check(self.url)
        assert outcome.covered != "no statement", outcome.failures
        return outcome.failures


@pytest.fixture
def history(tmp_path: Path, empty: URL, monkeypatch: pytest.MonkeyPatch) -> History:
    """A history whose first revision creates a table, with an empty cache."""
    migrations = tmp_path / "migrations"
    (migrations / "versions").mkdir(parents=True)
    shutil.copy2(ROOT / "migrations" / "env.py", migrations)
    first = migrations / "versions" / "2099_01_01_0000_111111111111_create_note.py"
    first.write_text(FIRST, encoding="utf-8")
    monkeypatch.setattr(lint, "scripts", lambda: ScriptDirectory(str(migrations)))
    monkeypatch.setattr(lint, "ROOT", tmp_path)
    monkeypatch.setattr(findings, "ROOT", tmp_path)
    monkeypatch.setattr(cache, "FILE", tmp_path / "lint-clean")
    return History(tmp_path, empty)


def summary(failures: list[Failure]) -> list[str]:
    """Return the place and the rule of each finding."""
    return [": ".join(failure.message.split(": ")[:2]) for failure in failures]


# ── findings ──────────────────────────────────────────────────────────────────────────────────────


class Rule(NamedTuple):
    """A bad and a good revision for a rule, and the reported line and statement."""

    name: str
    rule: str
    bad: str
    good: str
    at: str
    statement: str
    downgrade: str = "pass"


CONCURRENTLY = """
with op.get_context().autocommit_block():
    op.drop_index("note_body_idx", "note", if_exists=True, postgresql_concurrently=True)
    op.create_index("note_body_idx", "note", ["body"], postgresql_concurrently=True)
"""
DROP_CONCURRENTLY = """
with op.get_context().autocommit_block():
    op.drop_index("note_body_idx", "note", if_exists=True, postgresql_concurrently=True)
"""

SAFETY = (
    Rule(
        "index-on-an-older-table",
        "require-concurrent-index-creation",
        'op.create_index("note_body_idx", "note", ["body"])',
        CONCURRENTLY,
        "op.create_index(",
        "CREATE INDEX note_body_idx ON note (body)",
        DROP_CONCURRENTLY,
    ),
    Rule(
        "check-that-scans",
        "constraint-missing-not-valid",
        'op.create_check_constraint(op.f("note_check"), "note", "position > 0")',
        """
        op.create_check_constraint(
            op.f("note_check"), "note", "position > 0", postgresql_not_valid=True
        )
        """,
        "op.create_check_constraint(",
        "ALTER TABLE note ADD CONSTRAINT note_check CHECK (position > 0)",
        'op.drop_constraint(op.f("note_check"), "note")',
    ),
    Rule(
        "type-that-rewrites",
        "changing-column-type",
        'op.alter_column("note", "position", type_=sa.Numeric(20, 0))',
        'op.add_column("note", sa.Column("place", sa.BigInteger()))',
        "op.alter_column(",
        "ALTER TABLE note ALTER COLUMN position TYPE NUMERIC(20, 0)",
    ),
    Rule(
        "column-that-an-application-reads",
        "ban-drop-column",
        'op.drop_column("note", "position")',
        "op.execute(\"COMMENT ON COLUMN note.position IS 'Not read any more'\")",
        "op.drop_column(",
        "ALTER TABLE note DROP COLUMN position",
        'op.execute("COMMENT ON COLUMN note.position IS NULL")',
    ),
    Rule(
        "statement-after-another",
        "require-concurrent-index-creation",
        """
        op.execute("COMMENT ON TABLE note IS 'Notes'")
        op.execute(\"\"\"
            CREATE INDEX note_body_idx
            ON note (body)
        \"\"\")
        op.execute("COMMENT ON TABLE note IS NULL")
        """,
        "op.execute(\"COMMENT ON TABLE note IS 'Notes'\")",
        'op.execute("""',
        "CREATE INDEX note_body_idx\nON note (body)",
        'op.execute("COMMENT ON TABLE note IS NULL")',
    ),
)

STYLE = (
    Rule(
        "keyword-case",
        "CP01",
        "op.execute(\"COMMENT on TABLE note IS 'Notes'\")",
        "op.execute(\"COMMENT ON TABLE note IS 'Notes'\")",
        'op.execute("COMMENT on',
        "COMMENT on TABLE note IS 'Notes'",
        'op.execute("COMMENT ON TABLE note IS NULL")',
    ),
    Rule(
        "layout",
        "LT01",
        'op.execute("UPDATE note SET position  =  1")',
        'op.execute("UPDATE note SET position = 1")',
        "op.execute(",
        "UPDATE note SET position  =  1",
    ),
    Rule(
        "suppression-of-sqlfluffs-own",
        "CP01",
        "op.execute(\"COMMENT on TABLE note IS 'Notes' -- noqa\\n\")",
        "op.execute(\"COMMENT ON TABLE note IS 'Notes'\")",
        "op.execute(",
        "COMMENT on TABLE note IS 'Notes' -- noqa",
    ),
    Rule(
        "settings-of-sqlfluffs-own",
        "CP01",
        "op.execute(\"-- sqlfluff:exclude_rules:CP01\\nCOMMENT on TABLE note IS 'Notes'\")",
        "op.execute(\"COMMENT ON TABLE note IS 'Notes'\")",
        "op.execute(",
        "-- sqlfluff:exclude_rules:CP01\nCOMMENT on TABLE note IS 'Notes'",
    ),
)


def check_rule(history: History, rule: Rule) -> None:
    """Lint the bad revision, then the good one."""
    history.write(rule.bad)
    failures = history.lint()
    where = f"{FILE}:{history.line(rule.at)}: {rule.rule}"
    assert where in summary(failures), failures
    found = failures[summary(failures).index(where)]
    assert found.detail.split() == rule.statement.split()
    assert f"# lint: allow {rule.rule}: <reason>" in found.remedy
    assert {place.partition(":")[0] for place in summary(failures)} == {FILE}
    history.write(rule.good, rule.downgrade)
    assert history.lint() == []


@pytest.mark.parametrize("rule", SAFETY, ids=lambda rule: rule.name)
def test_what_a_statement_does(history: History, rule: Rule) -> None:
    """A statement that is unsafe on a database in use is reported; the good one passes."""
    check_rule(history, rule)


@pytest.mark.parametrize("rule", STYLE, ids=lambda rule: rule.name)
def test_how_a_statement_is_written(history: History, rule: Rule) -> None:
    """Bad style in hand-written SQL is reported, even with sqlfluff's own suppressions."""
    check_rule(history, rule)


def test_squawks_own_suppression(history: History) -> None:
    """A comment for squawk, which needs no reason, suppresses nothing."""
    history.write("""
        op.execute(\"\"\"
            -- squawk-ignore-file
            -- squawk-ignore require-concurrent-index-creation
            CREATE INDEX note_body_idx ON note (body)
        \"\"\")
    """)
    place = f"{FILE}:{history.line('op.execute(')}: require-concurrent-index-creation"
    assert summary(history.lint()) == [place]


def test_downgrade_is_linted(history: History) -> None:
    """A downgrade is linted too, but may drop the objects of the upgrade."""
    up = """
        op.execute("ALTER TABLE note ADD COLUMN x bigint")
        op.execute("ALTER TABLE note ADD CONSTRAINT note_check CHECK (x > 0) NOT VALID")
    """
    down = 'op.execute("ALTER TABLE note DROP CONSTRAINT note_check, DROP COLUMN x")'
    history.write(up, down)
    assert history.lint() == []
    history.write(up, f'{down}\nop.create_index("note_body_idx", "note", ["body"])')
    place = f"{FILE}:{history.line('op.create_index')}: require-concurrent-index-creation"
    assert summary(history.lint()) == [place]


def test_generated_sql_is_not_judged_by_its_layout(history: History) -> None:
    """SQLAlchemy's layout is accepted; the same layout in hand-written SQL is a finding."""
    layout = "SELECT note.id \nFROM note \nWHERE note.id IS NULL"
    generated = "op.execute(sa.select(NOTE.c.id).where(NOTE.c.id.is_(None)))"
    history.write(generated)
    assert history.lint() == []
    history.write(f"op.execute({layout!r})")
    found = summary(history.lint())
    assert f"{FILE}:{history.line('op.execute(')}: LT01" in found, found


def test_keywords_of_a_literal_are_text(history: History) -> None:
    """A literal may contain text that looks like a template or a placeholder."""
    history.write(r"""
        op.execute("UPDATE note SET body = '{{1, 2}, {3, 4}}'\nWHERE body LIKE 'a%'")
        op.execute("UPDATE note SET body = '{% raw %}'\nWHERE position % 2 = 0;")
        op.execute("UPDATE note SET body = format('%s %%', 'ä')")
        op.execute("UPDATE note SET body = '{\"v\"\\:1}'")
    """)
    assert history.lint() == []


def test_transaction_is_told_rightly(history: History) -> None:
    """CREATE INDEX CONCURRENTLY is accepted outside a transaction only.

    The statements are built by hand: PostgreSQL refuses it inside a transaction.
    """
    history.write(CONCURRENTLY, DROP_CONCURRENTLY)
    assert history.lint() == []
    revision = ScriptDirectory(str(history.root / "migrations")).get_revision("222222222222")
    assert revision is not None

    def rules(*, in_transaction: bool) -> list[str]:
        statements = [
            Statement(sql, 30, True, in_transaction, False)
            for sql in ("SELECT 1", "CREATE INDEX CONCURRENTLY i ON note (body)")
        ]
        direction = Direction(revision, upgrade=True, statements=statements)
        return [one.rule for one in squawk.check([direction], cache.CleanTexts())]

    assert rules(in_transaction=True) == ["ban-concurrent-index-creation-in-transaction"]
    assert rules(in_transaction=False) == []


def test_table_of_the_same_transaction_may_be_indexed(history: History) -> None:
    """A table of the same transaction may be indexed: other sessions cannot see it yet."""
    create = 'op.execute("CREATE TABLE page (id uuid PRIMARY KEY)")'
    index = 'op.execute("CREATE INDEX page_idx ON page (id)")'
    drop = 'op.execute("DROP TABLE page")'
    history.write(f"{create}\n{index}", drop)
    assert history.lint() == []
    block = "with op.get_context().autocommit_block():\n    op.execute('SELECT 1')"
    history.write(f"{create}\n{block}\n{index}", drop)
    place = f"{FILE}:{history.line('CREATE INDEX')}: require-concurrent-index-creation"
    assert summary(history.lint()) == [place]


# ── comments that accept a finding ────────────────────────────────────────────────────────────────

INDEX = 'op.create_index("note_body_idx", "note", ["body"])'
ALLOW = "# lint: allow require-concurrent-index-creation:"


def test_suppression_with_a_reason(history: History) -> None:
    """A comment above the statement with the rule and a reason accepts the finding."""
    history.write(f"{ALLOW} the table is empty\n{INDEX}")
    assert history.lint() == []


def test_suppression_over_several_lines(history: History) -> None:
    """The comment may have several lines, and covers the whole statement below."""
    body = """
        {allow} the table is empty,
        # as everybody knows
        for column in ("body", "position"):
            op.create_index(
                f"note_{{column}}_idx",
                "note",
                [column],
            )
    """
    history.write(body.format(allow=ALLOW))
    assert history.lint() == []


def test_suppression_without_a_reason(history: History) -> None:
    """A comment without a reason is a finding at its own line."""
    history.write(f"{ALLOW}\n{INDEX}")
    assert summary(history.lint()) == [f"{FILE}:{history.line(ALLOW)}: unreasoned"]


@pytest.mark.parametrize(
    "body",
    [
        f"{ALLOW} the table is empty\nop.execute('SELECT 1')",
        f"{ALLOW} the table is empty\nop.execute('SELECT 1')\n{INDEX}",
        f"# lint: allow ban-drop-table: the table is empty\n{INDEX}",
    ],
    ids=["nothing-to-accept", "another-statement", "another-rule"],
)
def test_suppression_that_accepts_nothing(history: History, body: str) -> None:
    """A comment accepts one rule of one statement; without such a finding it is reported."""
    history.write(body)
    found = summary(history.lint())
    expected = [f"{FILE}:{history.line('# lint: allow')}: unused"]
    if INDEX in body:
        expected.append(f"{FILE}:{history.line(INDEX)}: require-concurrent-index-creation")
    assert found == expected


SQL_FILES: dict[str, tuple[str, list[str]]] = {
    "good": ("SELECT 1 AS one;\n", []),
    "bad": ("SELECT 1 AS one;\nSELECT 2  as two;\n", ["2: CP01", "2: LT01"]),
    "accepted": (
        "-- lint: allow CP01: a test\nSELECT 2 as two;\n",
        [],
    ),
    "unreasoned": ("-- lint: allow CP01:\nSELECT 2 as two;\n", ["1: unreasoned"]),
    "unused": ("-- lint: allow CP01: a test\nSELECT 2 AS two;\n", ["1: unused"]),
    "noqa": ("SELECT 2 as two; -- noqa: CP01\n", ["1: CP01"]),
}


@pytest.mark.parametrize(("text", "expected"), SQL_FILES.values(), ids=SQL_FILES.keys())
def test_sql_file(history: History, text: str, expected: list[str]) -> None:
    """A .sql file is linted, and its findings are accepted, in the same way."""
    history.write("op.execute('SELECT 1')")
    path = history.root / "migrations" / "deeper" / "query.sql"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    failures = history.lint()
    assert summary(failures) == [f"migrations/deeper/query.sql:{one}" for one in expected]


# ── the executed SQL and --sql ────────────────────────────────────────────────────────────────────


def test_what_is_rendered_otherwise(history: History) -> None:
    """If `--sql` shows a different statement than runs, the finding shows both."""
    history.write("""op.execute("UPDATE note SET body = 'a\\tb'")""")
    failures = history.lint()
    (found,) = (one for one in failures if ": offline: " in one.message)
    place = f"{FILE}:{history.line('a\\tb')}: offline: "
    assert found.message == f"{place}the upgrade executes a different statement than --sql shows"
    executed, shown = found.detail.splitlines()
    assert executed == "executed: UPDATE note SET body = 'a\tb'"
    assert shown == "--sql:    UPDATE note SET body = 'a    b'"
    history.write("""op.execute("UPDATE note SET body = E'a\\\\tb'")""")
    assert history.lint() == []


def test_comment_that_swallows_the_end(history: History) -> None:
    """`--sql` appends a semicolon, which a comment at the end of a statement would hide."""
    history.write("op.execute('SELECT 1 -- why')\nop.execute('SELECT 2')")
    places = [failure.message for failure in history.lint() if ": offline: " in failure.message]
    (place,) = places
    assert place.startswith(f"{FILE}:1: offline: the upgrade cannot be rendered with --sql")


def test_colon_that_is_taken_for_a_parameter(history: History) -> None:
    """A statement with an unescaped colon fails; with an escaped one it runs and is rendered."""
    history.write("""op.execute("UPDATE note SET body = '{\\"v\\":1}'")""")
    outcome = lint.check(history.url)
    (failure,) = outcome.failures
    assert failure.message == "The upgrade or downgrade of the history fails: StatementError."


DATA = {
    "one-row": 'op.execute(NOTE.insert().values(id=uuid.UUID(int=1), body="a"))',
    "several-rows": """
        op.bulk_insert(
            NOTE,
            [{"id": uuid.UUID(int=n), "body": f"{n}% '", "position": n} for n in range(3)],
        )
    """,
    "no-row": "op.bulk_insert(NOTE, [])",
    "text-with-parameters": """
        op.execute(
            sa.text("UPDATE note SET body = :body\\nWHERE position = :position").bindparams(
                body="a", position=1
            )
        )
    """,
    "a-time": """
        op.execute("ALTER TABLE note ADD COLUMN at timestamptz")
        op.execute(NOTE.update().values(at=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)))
    """,
    "a-list": 'op.execute(NOTE.delete().where(NOTE.c.body.in_(["a", "b"])))',
    "two-statements-in-one": """
        op.execute("UPDATE note SET position = 1; UPDATE note SET position = 2")
    """,
}


@pytest.mark.parametrize("body", DATA.values(), ids=DATA.keys())
def test_data_revision(history: History, body: str) -> None:
    """`--sql` shows the values of parameters: it still counts as the same statement."""
    history.write(body, 'op.execute("ALTER TABLE note DROP COLUMN IF EXISTS at")')
    assert history.lint() == []


def test_parameters_do_not_hide_another_statement(history: History) -> None:
    """In a statement with parameters all but the values is compared."""
    body = """
        column = NOTE.c.body if op.get_context().as_sql else NOTE.c.position
        op.execute(NOTE.update().where(column.is_(None)).values(body="a"))
    """
    history.write(body)
    (found,) = history.lint()
    line = history.line("op.execute(NOTE.update()")
    assert found.message.startswith(f"{FILE}:{line}: offline: the upgrade executes a different")


def test_statement_that_is_not_rendered(history: History) -> None:
    """A statement that only runs or only `--sql` shows is reported."""
    history.write("if not op.get_context().as_sql:\n    op.execute('SELECT 7')")
    (found,) = history.lint()
    assert found.message.startswith(f"{FILE}:{history.line('SELECT 7')}: offline: ")
    assert "executes 1 statement, --sql shows 0" in found.message
    assert found.detail == "SELECT 7"
    history.write("if op.get_context().as_sql:\n    op.execute('SELECT 7')")
    (found,) = history.lint()
    assert found.message.startswith(f"{FILE}:1: offline: ")
    assert "executes 0 statements, --sql shows 1" in found.message
    assert found.detail == "SELECT 7"


READS = """
number = op.get_bind().execute(sa.text("SELECT count(*) FROM note")).scalar_one()
if number:
    op.execute("UPDATE note SET position = 0")
"""
REASON = "\n\nOFFLINE: it reads how many notes there are."


@pytest.mark.parametrize("way", ["upgrade", "downgrade"])
def test_revision_that_reads_the_database(history: History, way: str) -> None:
    """A revision that reads the database must say so: `--sql` cannot render it."""
    bodies = {"upgrade": "op.execute('SELECT 1')", "downgrade": "op.execute('SELECT 1')"}
    bodies[way] = READS
    history.write(**bodies)
    (found,) = history.lint()
    assert found.message.startswith(f"{FILE}:1: offline: the {way} cannot be rendered")
    history.write(**bodies, docstring="\n\nOFFLINE:")
    assert len(history.lint()) == 1
    history.write(**bodies, docstring=REASON)
    assert history.lint() == []


def test_reason_that_is_no_longer_needed(history: History) -> None:
    """OFFLINE in a revision that can be rendered is reported."""
    history.write("op.execute('SELECT 1')", "op.execute('SELECT 1')", docstring=REASON)
    (found,) = history.lint()
    assert found.message.startswith(f"{FILE}:1: offline: --sql shows exactly what runs")


# ── the cache ─────────────────────────────────────────────────────────────────────────────────────


def test_clean_is_remembered(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither squawk nor sqlfluff lints a cached text again."""
    history.write("op.execute('SELECT 1')")
    assert history.lint() == []

    def refuse(*_: object, **__: object) -> list[object]:
        pytest.fail("it was linted again")

    monkeypatch.setattr("schema.sql_lint.squawk._run_squawk", refuse)
    monkeypatch.setattr("schema.sql_lint.sqlfluff._lint", refuse)
    assert history.lint() == []


@pytest.mark.parametrize(
    ("good", "bad", "rule"),
    [
        (STYLE[0].good, STYLE[0].bad, "CP01"),
        (
            INDEX.replace('"note"', '"page"'),
            INDEX,
            "require-concurrent-index-creation",
        ),
    ],
    ids=["style", "safety"],
)
def test_memory_hides_nothing(history: History, good: str, bad: str, rule: str) -> None:
    """A changed statement is linted in every run until it is fixed."""
    page = 'op.execute("CREATE TABLE page (body text)")\n'
    drop = 'op.execute("DROP TABLE page")'
    history.write(page + good, drop)
    assert history.lint() == []
    history.write(page + bad, drop)
    for _ in range(3):
        assert any(place.endswith(rule) for place in summary(history.lint()))
    history.write(page + good, drop)
    assert history.lint() == []


def test_same_text_from_a_generator_is_no_excuse(history: History) -> None:
    """A generated text in the cache is linted again if it is hand-written."""
    history.write("op.execute(sa.select(NOTE.c.id).where(NOTE.c.id.is_(None)))")
    assert history.lint() == []
    history.write('op.execute("SELECT note.id \\nFROM note \\nWHERE note.id IS NULL")')
    assert history.lint() != []


def test_memory_that_is_damaged_or_missing(history: History) -> None:
    """Without a valid cache the result is the same."""
    history.write(STYLE[0].bad)
    cache.FILE.write_bytes(b"\xff\x00 nonsense\n")
    assert any("CP01" in place for place in summary(history.lint()))
    cache.FILE.unlink()
    cache.FILE.mkdir()
    assert any("CP01" in place for place in summary(history.lint()))


# ── the whole command ─────────────────────────────────────────────────────────────────────────────


def run_check(copy: Checkout, url: URL, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `schema check` in the copy on that server."""
    given = url.render_as_string(hide_password=False)
    return subprocess.run(
        [sys.executable, "-B", "-P", "-c", COMMAND, "check", "--database-url", given, *arguments],
        cwd=copy.root,
        env=os.environ | {"PYTHONPATH": f"{copy.root}{os.pathsep}{copy.root / 'scripts'}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def remembered(tmp_path: Path) -> Callable[[], Checkout]:
    """Makes a copy of the checkout with its lint cache."""

    def make() -> Checkout:
        copy = copy_to(tmp_path / "checkout")
        (copy.root / ".venv").mkdir()
        memory = ROOT / ".venv" / "lint-clean"
        if memory.exists():
            shutil.copy2(memory, copy.root / ".venv")
        return copy

    return make


@pytest.mark.slow
def test_whole_check_names_the_finding(server: Server, remembered: Callable[[], Checkout]) -> None:
    """`schema check` fails with the findings of both linters; --no-lint skips them.

    The copy is linted, not the installed checkout.
    """
    copy = remembered()
    create, drop = "CREATE INDEX todo_x_idx on todo (title)", "DROP INDEX todo_x_idx"
    path = copy.add(sql(create, drop), sql("SELECT 1"))
    done = run_check(copy, server.maintenance)
    assert done.returncode == 1, done.stdout + done.stderr
    for rule in ("CP01", "require-concurrent-index-creation"):
        assert f"SQL lint: {path.name}:13: {rule}: " in done.stdout, done.stdout + done.stderr
    assert f"    {create}\n" in done.stdout
    assert "2 of 10 checks failed" in done.stdout  # schema.txt names the older revision
    done = run_check(copy, server.maintenance, "--no-lint")
    assert "SQL lint" not in done.stdout
    assert f"1 of {len(CHECKS)} checks failed" in done.stdout


@pytest.mark.slow
def test_whole_check_after_everything_is_forgotten(server: Server, tmp_path: Path) -> None:
    """The checkout's SQL has no finding, without the cache too."""
    copy = copy_to(tmp_path / "checkout")
    done = run_check(copy, server.maintenance)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✓ passes  SQL lint" in done.stdout


@pytest.mark.slow
def test_lint_is_not_waited_for_when_the_history_does_not_build(
    server: Server, remembered: Callable[[], Checkout]
) -> None:
    """If an earlier check fails, the lint is stopped and reported as not run."""
    copy = remembered()
    copy.add('op.execute("SELECT 1 / 0")')
    done = run_check(copy, server.maintenance)
    assert done.returncode == 1
    assert re.search(r"^- +SQL lint +not tried", done.stdout, re.MULTILINE), done.stdout
    assert "Traceback" not in done.stdout + done.stderr
