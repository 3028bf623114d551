"""`schema review`, from the command line to the page, in clones with a pull request's revisions.

The theory: the page is what a reviewer sees, so the whole way to it is tried: git says what is new,
the exit code is the verdict, a database that is given keeps its values to itself, and what cannot
be reviewed is said in one sentence.
"""

import json
import re
from collections.abc import Callable

import pytest
from sqlalchemy import URL

from schema.access.declared import declared_samples
from schema.postgres.connection import connect
from schema.rows.generator import Generator
from schema.rows.tables import read_tables
from tests.support.changes import CHANGES, Change
from tests.support.repo_copy import IRREVERSIBLE, Checkout, Launcher, Result, branch_off, git

ADD = 'op.execute("ALTER TABLE todo ADD COLUMN mark text")'
DROP = 'op.execute("ALTER TABLE todo DROP COLUMN mark")'
INDEX = 'op.execute("CREATE INDEX todo_title_idx ON todo (user_id, title)")'
NO_INDEX = 'op.execute("DROP INDEX todo_title_idx")'

type Reviewing = Callable[..., Result]


@pytest.fixture
def clone(copy: Checkout) -> Checkout:
    """A repository whose branch main is this checkout."""
    branch_off(copy)
    return copy


@pytest.fixture
def review(run: Launcher, clone: Checkout) -> Reviewing:
    """Run `schema review` in the clone, on few rows."""
    return lambda *options: run.run(clone.root, "review", "--rows", "10000", *options)


def test_nothing_new(review: Reviewing) -> None:
    """Without a new revision, one line says so, without a database."""
    result = review()
    assert result.code == 0, result.everything
    assert "no new revision" in result.out
    assert len(result.out.splitlines()) == 1


REFUSED = {
    "a database that may be needed": (
        ("--database-url", "postgresql://x@localhost/x"),
        "add --disposable",
    ),
    "a pooled host": (
        ("--disposable", "--database-url", "postgresql://x@ep-a-pooler.example.com/x"),
        "use the direct host",
    ),
    "an unknown base": (("--base", "nowhere"), "--base"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(review: Reviewing, clone: Checkout, case: str) -> None:
    """What cannot be reviewed is said in one sentence, with exit code 2, as JSON too."""
    clone.add(upgrade=ADD, downgrade=DROP)
    options, words = REFUSED[case]
    result = review(*options, "--format", "json")
    assert result.code == 2, result.everything
    assert words in result.err
    document = json.loads(result.out)
    assert words in document["error"]
    assert document["verdict"] is None


def test_a_revision_before_a_merged_one(review: Reviewing, clone: Checkout) -> None:
    """A history that must be rebased is not reviewed."""
    clone.add(upgrade=ADD, downgrade=DROP)
    clone.add(name="2099_later.py", revision="b0b1c2d3e4f5", parents="a0b1c2d3e4f5")
    git(clone, "checkout", "-q", "main")
    git(clone, "add", "migrations/versions/2099_later.py")
    git(clone, "commit", "-qm", "Merge the later one")
    git(clone, "checkout", "-qB", "feature")
    result = review()
    assert (result.code, "schema rebase" in result.err) == (2, True), result.everything


@pytest.mark.slow
def test_page(review: Reviewing, clone: Checkout) -> None:
    """A safe revision and one that scans under a lock: the page, the verdict and the exit code.

    The two runs' pages are equal, times apart.
    """
    clone.add(upgrade=ADD, downgrade=DROP)
    assert review("--output", "safe.md").code == 0
    clone.add(INDEX, NO_INDEX, revision="b0b1c2d3e4f5", parents="a0b1c2d3e4f5")
    first = review()
    assert first.code == 1, first.everything
    assert first.out.startswith("### ✗ Blocked")
    for words in ("scan", "CREATE INDEX CONCURRENTLY", "erDiagram", "todo.mark"):
        assert words in first.out, words
    assert "✗" not in (clone.root / "safe.md").read_text().splitlines()[0]
    assert without_times(first.out) == without_times(review().out)


def without_times(page: str) -> str:
    """Blank what a clock decides."""
    return re.sub(r"(< )?\b\d+(\.\d+)? (µs|ms|s)\b|\b\d+ min\b", "…", page)


@pytest.mark.slow
def test_document(review: Reviewing, clone: Checkout) -> None:
    """JSON says all of it: each statement, its locks, and the finding's name."""
    clone.add(upgrade=INDEX, downgrade=NO_INDEX)
    result = review("--format", "json")
    document = json.loads(result.out)
    assert (result.code, document["ok"], document["error"]) == (1, False, None)
    (finding,) = (one for one in document["findings"] if one["blocking"])
    assert (finding["kind"], finding["object"]) == ("scan", "todo")
    (statement,) = document["steps"][0]["transactions"][0]["statements"]
    assert statement["scans"] == ["todo"]
    assert statement["locks"][0]["mode"] == "SHARE"
    assert [one["status"] for one in document["lints"]] == ["confirmed"]


@pytest.mark.slow
def test_running_code_breaks(review: Reviewing, clone: Checkout) -> None:
    """A column that the models still have cannot be dropped: no order of deployment helps."""
    clone.add(
        upgrade='op.execute("ALTER TABLE todo DROP COLUMN description")',
        downgrade=IRREVERSIBLE,
    )
    document = json.loads(review("--format", "json").out)
    kinds = {(one["kind"], one["object"]) for one in document["findings"] if one["blocking"]}
    assert {("breaks", "todo"), ("loses", "todo.description")} <= kinds
    assert {one["models"] for one in document["breaks"]} >= {"base"}


@pytest.mark.slow
def test_access_is_wider(review: Reviewing, clone: Checkout) -> None:
    """A policy that shows a user others' rows is found by the rows that are seen."""
    clone.add(
        upgrade='op.execute("CREATE POLICY all_todos ON todo FOR SELECT TO todo_app USING (true)")',
        downgrade='op.execute("DROP POLICY all_todos ON todo")',
    )
    document = json.loads(review("--format", "json").out)
    (change,) = document["access"]
    assert (change["role"], change["object"], change["command"]) == ("todo_app", "todo", "SELECT")
    assert (change["after"], change["tried"]) == ("all rows", True)
    assert [one["object"] for one in document["findings"]] == ["todo_app SELECT todo"]


HAZARDOUS = {
    "text of a list": {"scan", "breaks"},
    "required numeric": {"breaks"},
    "required varchar": {"breaks"},
    "type change with a backfill": {"scan", "backfill"},
    "rename in steps": {"scan", "backfill"},
    "rename, last step": {"scan", "backfill", "breaks"},
    "dropped column": {"breaks"},
}
"""Changes that are right in themselves, and hurt a running application: why."""


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_a_correct_change(review: Reviewing, clone: Checkout, change: Change) -> None:
    """Of the changes that the project's tests make, only the hazardous ones are blocked."""
    change.apply(clone)
    document = json.loads(review("--format", "json").out)
    blocking = {one["kind"] for one in document["findings"] if one["blocking"]}
    assert blocking == HAZARDOUS.get(change.name, set())
    assert not any("No row" in one for one in document["not_covered"])


@pytest.mark.slow
def test_given_database(review: Reviewing, clone: Checkout, head: URL) -> None:
    """On a database that is given, the rows stay its secret, also where they stop a revision."""
    with connect(head) as connection:
        generator = Generator(connection, read_tables(connection), samples=declared_samples())
        generator.spread({"user": 3, "todo": 50})
        connection.exec_driver_sql("UPDATE todo SET title = 'confidential ' || id")
        connection.commit()
    clone.add(
        upgrade="op.execute(\"ALTER TABLE todo ADD CONSTRAINT short CHECK (title = 'x')\")",
        downgrade='op.execute("ALTER TABLE todo DROP CONSTRAINT short")',
    )
    url = head.render_as_string(hide_password=False)
    result = review("--database-url", url, "--disposable")
    assert result.code == 1, result.everything
    assert "50" in result.out
    assert "short" in result.out
    assert "confidential" not in result.everything
    again = review("--database-url", url, "--disposable", "--format", "html")
    assert "confidential" not in again.everything


@pytest.mark.slow
def test_given_database_is_ahead(review: Reviewing, clone: Checkout, head: URL) -> None:
    """A database that has run the new revisions already is not reviewed: it must be reset."""
    clone.add(upgrade=ADD, downgrade=DROP)
    url = head.render_as_string(hide_password=False)
    assert review("--database-url", url, "--disposable").code == 0
    second = review("--database-url", url, "--disposable")
    assert (second.code, "reset" in second.err) == (2, True), second.everything


def test_unreadable_history(review: Reviewing, clone: Checkout) -> None:
    """A file that is no Python is no traceback."""
    (clone.versions / "2099_01_01_0000_0123456789ab_broken.py").write_text("def upgrade(:")
    result = review()
    assert (result.code, "schema check" in result.err) == (2, True), result.everything


def test_output_is_written(review: Reviewing, clone: Checkout) -> None:
    """`--output` writes the page, and says where in one line."""
    result = review("--output", "page.html", "--format", "html")
    assert result.code == 0, result.everything
    assert (clone.root / "page.html").read_text().startswith("<!DOCTYPE html>")
