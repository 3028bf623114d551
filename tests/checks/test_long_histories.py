"""`schema check` on long, generated histories that use all features of Alembic.

The theory: the time grows linearly with the number of revisions; labels, dependencies, data and
autocommit blocks are accepted; branches and merges are rejected before any other check.

Ten revisions create a table like `note` of migrations/README.md, add a column, data, an index and a
comment, and drop it. So the schema at the head is the committed one and every check must pass,
except that schema.txt names another revision.
"""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection

from migrations import snapshot
from models.version import HISTORY
from schema.checks import round_trip
from schema.postgres.connection import connect
from schema.postgres.scratch import Server
from schema.sql_lint import offline_sql
from schema.sql_lint.capture import record
from tests.support.repo_copy import CHECKS, COMMAND, Checkout, Launcher, Result, copy_to, sql

REVISION = '''"""@summary@ @.

WHY: a test needs a long history.
"""

import sqlalchemy as sa
from alembic import op

revision = "@revision@"
down_revision = "@parent@"
branch_labels = @labels@
depends_on = @depends@
@rows@

VALUES = sa.table(
    "verification",
    sa.column("id", sa.Uuid()),
    sa.column("identifier", sa.Text()),
    sa.column("value", sa.Text()),
    sa.column("expiresAt", sa.TIMESTAMP(timezone=True)),
)


def upgrade() -> None:
@upgrade@


def downgrade() -> None:
@downgrade@
'''
"""A revision file; `@name@` is a placeholder, and `@` alone is the table's number."""

CREATE = '''
op.create_table(
    "note_@",
    sa.Column("user_id", sa.Uuid(), nullable=False, comment="The user who owns this row"),
    sa.Column("id", sa.Uuid(), server_default=sa.text("uuid_v7()"), nullable=False, comment="Key"),
    sa.Column("body", sa.Text(), nullable=False, comment="What was noted"),
    sa.PrimaryKeyConstraint("user_id", "id", name=op.f("note_@_pkey")),
    sa.ForeignKeyConstraint(
        ["user_id"], ["user.id"], name=op.f("note_@_user_id_fkey"), ondelete="CASCADE"
    ),
    comment="Notes",
)
op.execute("ALTER TABLE note_@ ENABLE ROW LEVEL SECURITY")
op.execute("ALTER TABLE note_@ FORCE ROW LEVEL SECURITY")
op.execute("""
    CREATE POLICY note_@_owner ON note_@ TO todo_app
    USING (user_id = (SELECT app_user_id()))
    WITH CHECK (user_id = (SELECT app_user_id()))
""")
op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON note_@ TO todo_app")
'''
DROP = 'op.drop_table("note_@")'
ADD_COLUMN = 'op.add_column("note_@", sa.Column("rank", sa.BigInteger(), comment="Its place"))'
DROP_COLUMN = 'op.drop_column("note_@", "rank")'
ADD_CHECK = """
op.create_check_constraint(
    op.f("note_@_rank_check"), "note_@", "rank > 0", postgresql_not_valid=True
)
"""
DROP_CHECK = 'op.drop_constraint(op.f("note_@_rank_check"), "note_@")\n'
VALIDATE = 'op.execute("ALTER TABLE note_@ VALIDATE CONSTRAINT note_@_rank_check")\n'
DROP_INDEX = """
with op.get_context().autocommit_block():
    op.drop_index(op.f("note_@_idx"), "note_@", if_exists=True, postgresql_concurrently=True)
"""
CREATE_INDEX = (
    DROP_INDEX
    + """
    op.create_index(
        op.f("note_@_idx"), "note_@", ["user_id", "rank"], postgresql_concurrently=True
    )
"""
)
FILL = """
op.bulk_insert(
    VALUES,
    [
        {
            "id": uuid.UUID(int=@ * 10 + row),
            "identifier": "generated @",
            "value": "100% '{{x}}' \\\\",
            "expiresAt": datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC),
        }
        for row in range(3)
    ],
)
"""
EMPTY = """
op.execute("SELECT set_config('row_security', 'off', true)")
op.execute(VALUES.delete().where(VALUES.c.identifier == "generated @"))
"""
DESCRIBE = "op.execute(\"COMMENT ON TABLE note_@ IS 'Notes, and more'\")\n"
DESCRIBE_AS_BEFORE = "op.execute(\"COMMENT ON TABLE note_@ IS 'Notes'\")"

STEPS = (
    ("Create note", CREATE, DROP),
    ("Rank note", ADD_COLUMN, DROP_COLUMN),
    ("Check note", ADD_CHECK, DROP_CHECK),
    ("Validate note", VALIDATE, DROP_CHECK + ADD_CHECK),
    ("Index note", CREATE_INDEX, DROP_INDEX),
    ("Fill verification", FILL, EMPTY),
    ("Describe note", DESCRIBE, DESCRIBE_AS_BEFORE),
    ("Empty verification", EMPTY, FILL),
    ("Unindex note", DROP_INDEX, CREATE_INDEX),
    ("Drop note", DROP, CREATE + DESCRIBE + ADD_COLUMN + ADD_CHECK + VALIDATE),
)
"""The upgrade and downgrade of ten revisions."""

ROWS = {
    "Validate note": 'assumes = {"note_@": "rank > 0"}',
    "Empty verification": (
        'loses = {"verification.createdAt": "they are inserted anew",'
        ' "verification.updatedAt": "they are inserted anew"}'
    ),
    "Drop note": 'loses = {"note_@": "a test drops it"}',
}
"""What a revision says of the rows that are there before it."""


def grow(copy: Checkout, number: int, steps: tuple[tuple[str, str, str], ...] = STEPS) -> None:
    """Add that many revisions to the copy's history."""
    parent = copy.head
    for index in range(number):
        round_, step = divmod(index, len(steps))
        summary, upgrade, downgrade = steps[step]
        revision = f"{index:04}{round_:08x}"
        text = REVISION
        # Each table's first revision has a label, and its last one depends on that one.
        first = f"{index - step:04}{round_:08x}"
        last = step == len(steps) - 1 and step > 0
        for name, value in {
            "summary": summary,
            "revision": revision,
            "parent": parent,
            "labels": f'("note-{round_}",)' if step == 0 else "None",
            "depends": f'"{first}"' if last else "None",
            "rows": ROWS.get(summary, ""),
            "upgrade": textwrap.indent(upgrade.strip(), "    "),
            "downgrade": textwrap.indent(downgrade.strip(), "    "),
        }.items():
            text = text.replace(f"@{name}@", value)
        if "uuid.UUID" in text:
            text = text.replace(
                "import sqlalchemy", "import datetime\nimport uuid\n\nimport sqlalchemy"
            )
        path = copy.versions / f"2090_01_01_{index:04}_{revision}_step.py"
        path.write_text(text.replace("@", str(round_)), encoding="utf-8")
        parent = revision


@pytest.fixture
def schema(run: Launcher, copy: Checkout, server: Server) -> Callable[..., Result]:
    """Run the `schema` command in the copy, on the shared server."""
    url = server.maintenance.render_as_string(hide_password=False)
    return lambda *arguments: run.run(copy.root, *arguments, "--database-url", url)


def checks_of(result: Result) -> dict[str, Any]:
    """Return the checks in the command's JSON document, by name."""
    assert result.out, result.everything
    return {check["name"]: check for check in json.loads(result.out)["checks"]}


def check_long(copy: Checkout, schema: Callable[..., Result], number: int) -> dict[str, Any]:
    """Add revisions, and assert that all checks pass except for schema.txt."""
    grow(copy, number)
    rewritten = schema("snapshot")
    changed = rewritten.out.partition("migrations/schema.txt is rewritten.")[0]
    assert [line[:10] for line in changed.splitlines()] == ["- revision", "+ revision"]
    result = schema("check", "--no-lint", "--json")
    checks = checks_of(result)
    assert result.code == 0, [check["failures"] for check in checks.values()]
    assert list(checks) == CHECKS
    revisions = number + len(HISTORY)
    assert checks["history"]["covered"].startswith(f"{revisions} revisions, one line")
    # One snapshot before the first revision, two for each, and one at each end.
    reads = 1 + 2 * revisions + 2
    covered = f"{revisions} revisions up, down, up, with rows in every table; {reads} snapshots"
    assert checks["round trip"]["covered"].startswith(covered)
    return checks


@pytest.mark.slow
def test_generated_history(copy: Checkout, schema: Callable[..., Result]) -> None:
    """Every check passes for a history of tables, columns, checks, indexes, data and comments."""
    check_long(copy, schema, 20)  # 50, 100 and 200: below


@pytest.mark.slow
def test_time_grows_linearly(
    tmp_path: Path, run: Launcher, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four times the revisions take about four times as long, and not sixteen times."""
    url = server.maintenance.render_as_string(hide_password=False)
    seconds: dict[int, dict[str, float]] = {}
    for number in (50, 100, 200):
        copy = copy_to(tmp_path / str(number))

        def schema(*arguments: str, root: Path = copy.root) -> Result:
            return run.run(root, *arguments, "--database-url", url)

        checks = check_long(copy, schema, number)
        seconds[number] = {name: check["seconds"] for name, check in checks.items()}
    with capsys.disabled():
        for name in seconds[50]:
            print(f"\n{name:20}", *(f"{one[name]:7.2f} s" for one in seconds.values()), end="")  # noqa: T201  # the figures are the point
    for name in ("history", "upgrade head", "round trip"):
        # On a busy machine, what takes hundredths of a second may take half of one.
        assert seconds[200][name] < 2 * 4 * max(seconds[50][name], 0.2), seconds


@pytest.mark.slow
def test_each_schema_is_read_once(
    copy: Checkout, empty: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema before a revision is the schema after its parent: it is read once."""
    grow(copy, 10)
    directory = ScriptDirectory(str(copy.root / "migrations"))
    read = 0

    def count(connection: Connection, *, version_table: bool) -> snapshot.Snapshot:
        nonlocal read
        read += 1
        return original(connection, version_table=version_table)

    original = snapshot.read
    monkeypatch.setattr(snapshot, "read", count)
    outcome, schemas = round_trip.check(empty, directory, lambda _: None)
    assert outcome.failures == []
    revisions = 10 + len(HISTORY)
    assert read == 1 + 2 * revisions + 2
    assert f"{revisions} revisions up, down, up, " in outcome.covered
    assert f"; {read} snapshots" in outcome.covered
    assert len(schemas) == 1 + revisions


@pytest.mark.slow
def test_each_revision_is_walked(copy: Checkout, empty: URL) -> None:
    """In a long history, the one revision with an incomplete downgrade is reported."""
    grow(copy, 30)
    (path,) = copy.versions.glob("*_0016*_step.py")  # Describe note
    copy.edit(path, "IS 'Notes'", "IS 'Notices'")
    directory = ScriptDirectory(str(copy.root / "migrations"))
    (failure,) = round_trip.check(empty, directory, lambda _: None)[0].failures
    assert failure.message.startswith(f"The downgrade of {path.name} does not restore the schema")
    assert "Notices" in failure.detail


def test_sql_of_a_long_history_is_rendered_as_it_runs(copy: Checkout, empty: URL) -> None:
    """`--sql` shows data with parameters and autocommit blocks as they run."""
    grow(copy, 20)
    directory = ScriptDirectory(str(copy.root / "migrations"))
    with connect(empty) as connection:
        recorded = record(connection, directory)
    assert len(recorded) == 2 * (20 + len(HISTORY))
    assert list(offline_sql.check(directory, recorded)) == []
    outside = [
        statement.sql.split()[:3]
        for direction in recorded
        for statement in direction.statements
        if not statement.in_transaction
    ]
    assert ["CREATE", "INDEX", "CONCURRENTLY"] in outside
    assert {(words[1], words[2]) for words in outside} == {("INDEX", "CONCURRENTLY")}
    inserted = [
        statement
        for direction in recorded
        for statement in direction.statements
        if statement.sql.startswith("INSERT INTO verification")
    ]
    # Two tables with three rows, in the upgrade and in the downgrade.
    assert len(inserted) == 2 * 3 * 2
    assert all(statement.parametrised and not statement.hand_written for statement in inserted)


def _branch(copy: Checkout) -> None:
    grow(copy, 20)
    copy.add(revision="bbbbbbbbbbbb", parents="000500000000", upgrade=sql("SELECT 1"))


def _merge(copy: Checkout) -> None:
    _branch(copy)
    heads = ("bbbbbbbbbbbb", "001900000001")
    name = "2099_01_01_0001_cccccccccccc_merge.py"
    copy.add(revision="cccccccccccc", parents=heads, name=name)


def _second_base(copy: Checkout) -> None:
    grow(copy, 20)
    path = copy.add(revision="bbbbbbbbbbbb")
    copy.edit(path, f"down_revision = {copy.head!r}", "down_revision = None")


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (_branch, "The history branches after 2090_01_01_0005_000500000000_step.py: "),
        (_merge, "2099_01_01_0001_cccccccccccc_merge.py merges two lines of history."),
        (_second_base, "The history has 2 heads: 001900000001, bbbbbbbbbbbb."),
    ],
    ids=["branch", "merge", "second-base"],
)
def test_no_line(
    copy: Checkout, schema: Callable[..., Result], do: Callable[[Checkout], None], message: str
) -> None:
    """A history that is not linear is rejected, and no other check runs."""
    do(copy)
    result = schema("check", "--json")
    assert result.code == 1, result.everything
    checks = checks_of(result)
    failures = checks["history"]["failures"]
    assert any(message in one["message"] + one["detail"] for one in failures), checks
    assert [name for name, check in checks.items() if check["passed"] is not None] == ["history"]


@pytest.mark.slow
def test_lint_of_a_long_history(copy: Checkout, server: Server) -> None:
    """The lint of a long history reports its known findings, and no others, also from the cache.

    The history drops tables, and the downgrade of that adds and validates a constraint at once.
    """
    grow(copy, 100)
    url = server.maintenance.render_as_string(hide_password=False)
    (copy.root / ".venv").mkdir()

    def lint() -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-B", "-P", "-c", COMMAND, "check", "--json", "--database-url", url],
            cwd=copy.root,
            env=os.environ | {"PYTHONPATH": f"{copy.root}{os.pathsep}{copy.root / 'scripts'}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1, done.stdout + done.stderr
        (check,) = (one for one in json.loads(done.stdout)["checks"] if one["name"] == "SQL lint")
        found: dict[str, Any] = check
        return found

    first, second = lint(), lint()
    rules = {failure["message"].split(": ")[1] for failure in first["failures"]}
    assert rules == {"ban-drop-table", "constraint-missing-not-valid"}
    assert second["failures"] == first["failures"]
    assert second["seconds"] < first["seconds"]
