"""The rules for revision files, and the immutability of merged ones: each is broken once.

Only the history check runs, which needs no database, with the copy's own code.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from schema.postgres.scratch import Server
from tests.support.repo_copy import (
    CHECK,
    CHECKS,
    COMMAND,
    IRREVERSIBLE,
    Checkout,
    Launcher,
    Result,
    branch_off,
    git,
    sql,
)

HISTORY_ALONE = """
import dataclasses, json
from schema import project
from schema.checks import history
result = history.check(project.scripts())
print(json.dumps([[one.message, one.remedy] for one in result.failures]))
"""


# ── history ───────────────────────────────────────────────────────────────────────────────────────


class Break(NamedTuple):
    """One way to break a copy, and its messages, in full or in part."""

    name: str
    do: Callable[[Checkout], object]
    messages: tuple[str, ...]
    remedy: str = ""


def _two_lines(copy: Checkout) -> None:
    copy.add(revision="aaaaaaaaaaaa")
    copy.add(revision="bbbbbbbbbbbb")


def _merge(copy: Checkout) -> None:
    _two_lines(copy)
    merged = ("aaaaaaaaaaaa", "bbbbbbbbbbbb")
    name = "2099_01_01_0001_cccccccccccc_merge.py"
    copy.add(revision="cccccccccccc", parents=merged, name=name)


def _without(name: str) -> Callable[[Checkout], None]:
    def remove(copy: Checkout) -> None:
        path = copy.add(sql("SELECT 1"), sql("SELECT 1"))
        before, _, after = path.read_text(encoding="utf-8").partition(f"def {name}() -> None:")
        rest = after.partition("\n\n\n")[2]
        path.write_text(before + rest, encoding="utf-8")

    return remove


def _line_removed(beginning: str) -> Callable[[Checkout], None]:
    def remove(copy: Checkout) -> None:
        path = copy.add()
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(beginning)]
        assert len(kept) == len(lines) - 1
        path.write_text("".join(kept), encoding="utf-8")

    return remove


def _imports(statement: str) -> Callable[[Checkout], None]:
    def add(copy: Checkout) -> None:
        copy.edit(copy.add(), "from alembic import op", f"from alembic import op\n\n{statement}")

    return add


def _twice(copy: Checkout) -> None:
    path = copy.add()
    text = path.read_text(encoding="utf-8")
    path.with_name(path.name.replace("2099", "2098")).write_text(text, encoding="utf-8")


def _no_revision(copy: Checkout) -> None:
    for path in copy.versions.glob("*.py"):
        path.unlink()


HISTORY = (
    Break(
        "two-heads",
        _two_lines,
        ("The history has 2 heads: aaaaaaaaaaaa, bbbbbbbbbbbb.",),
        "set the down_revision of the newer one to the older one",
    ),
    Break(
        "merge",
        _merge,
        ("_merge.py merges two lines of history.", "The history branches after"),
        "rebase one line onto the other",
    ),
    Break("no-revision", _no_revision, ("There is no revision.",), "alembic revision -m"),
    Break(
        "name-without-date",
        lambda copy: copy.add(name="change_something.py"),
        ("change_something.py is not named YYYY_MM_DD_HHMM_<revision>_<slug>.py",),
        "Rename it",
    ),
    Break(
        "name-of-another-revision",
        lambda copy: copy.add(name="2099_01_01_0000_ffffffffffff_change_something.py"),
        ("is not named YYYY_MM_DD_HHMM_<revision>_<slug>.py with its revision, a0b1c2d3e4f5.",),
        "Rename it",
    ),
    Break(
        "name-sorts-before-its-parent",
        lambda copy: copy.add(name="2001_01_01_0000_a0b1c2d3e4f5_change_something.py"),
        ("2001_01_01_0000_a0b1c2d3e4f5_change_something.py sorts before",),
        "Rename it with a later time",
    ),
    Break(
        "docstring-is-no-sentence",
        lambda copy: copy.add(summary="change something"),
        ("does not begin with a sentence that says what it does.",),
        "Begin its docstring with one in the imperative",
    ),
    Break(
        "no-docstring",
        lambda copy: copy.edit(copy.add(), '"""Change', 'pass\n"""Change'),
        ("does not begin with a sentence", "does not say why."),
    ),
    Break("no-why", _line_removed("WHY:"), ("does not say why.",), "begins with WHY:"),
    Break(
        "why-of-the-template",
        lambda copy: copy.edit(copy.add(), "WHY: a test", "WHY: say what needs this change, a"),
        ("does not say why.",),
        "begins with WHY:",
    ),
    Break(
        "imports-models",
        _imports("from models import Todo"),
        ("imports models.",),
        "Import only alembic, sqlalchemy and the standard library",
    ),
    Break("imports-models-module", _imports("import models.todo as m"), ("imports models.todo.",)),
    Break("imports-another-package", _imports("import sqlmodel"), ("imports sqlmodel.",)),
    Break(
        "imports-models-in-a-function",
        lambda copy: copy.add(
            "from models import Todo\n    op.execute(Todo.__doc__)", "op.get_bind()"
        ),
        ("imports models.",),
    ),
    Break("no-upgrade", _without("upgrade"), ("has no upgrade function.",), "Add def upgrade()"),
    Break(
        "no-downgrade",
        _without("downgrade"),
        ("has no downgrade function.",),
        "Add def downgrade()",
    ),
    Break(
        "empty-downgrade",
        lambda copy: copy.add(sql("SELECT 1")),
        ("has a downgrade that does nothing.",),
        "Undo what upgrade does, or raise NotImplementedError and say why",
    ),
    Break(
        "downgrade-of-only-a-docstring",
        lambda copy: copy.add(sql("SELECT 1"), '"""Nothing to do."""'),
        ("has a downgrade that does nothing.",),
    ),
    Break(
        "downgrade-raises-without-a-reason",
        lambda copy: copy.add(sql("SELECT 1"), "raise NotImplementedError"),
        ("has a downgrade that raises without a reason.",),
        "because …",
    ),
    Break(
        "downgrade-raises-with-an-empty-reason",
        lambda copy: copy.add(sql("SELECT 1"), 'raise NotImplementedError("")'),
        ("has a downgrade that raises without a reason.",),
    ),
    Break(
        "syntax-error",
        lambda copy: copy.add("op.execute("),
        ("The revision files cannot be read: SyntaxError:",),
        "Fix the file named.",
    ),
    Break(
        "unknown-parent",
        lambda copy: copy.add(parents="ffffffffffff"),
        ("ffffffffffff",),
    ),
    Break("same-revision-twice", _twice, ("a0b1c2d3e4f5",)),
)


@pytest.mark.sample(8)
@pytest.mark.parametrize("case", HISTORY, ids=lambda case: case.name)
def test_history_rule(run: Launcher, copy: Checkout, case: Break) -> None:
    """Each rule reports the file that breaks it, and there is no other failure."""
    case.do(copy)
    result = run.run(copy.root, code=HISTORY_ALONE)
    assert result.code == 0, result.everything
    failures = json.loads(result.out)
    assert len(failures) == len(case.messages), result.everything
    for expected in case.messages:
        assert any(expected in message for message, _ in failures), result.everything
    assert all(remedy for _, remedy in failures)
    assert case.remedy in " ".join(remedy for _, remedy in failures)


@pytest.mark.parametrize(
    "do",
    [
        pytest.param(lambda copy: copy.add("pass", "pass"), id="nothing-to-undo"),
        pytest.param(lambda copy: copy.add(sql("SELECT 1"), IRREVERSIBLE), id="irreversible"),
        pytest.param(_imports("import hashlib\nimport sqlalchemy as sa"), id="allowed-imports"),
    ],
)
def test_history_accepts(run: Launcher, copy: Checkout, do: Callable[[Checkout], object]) -> None:
    """A history that follows the rules has no failure."""
    do(copy)
    result = run.run(copy.root, code=HISTORY_ALONE)
    assert result.code == 0, result.everything
    assert json.loads(result.out) == [], result.everything


def test_new_revision_from_the_template(run: Launcher, copy: Checkout) -> None:
    """The template fails until its author gives the reason for the change."""
    code = "from alembic.config import main; main()"
    made = run.run(copy.root, "revision", "-m", "Add a thing to nothing.", code=code)
    assert made.code == 0, made.everything
    result = run.run(copy.root, code=HISTORY_ALONE)
    found = [message for message, _ in json.loads(result.out)]
    assert len(found) == 2, found
    assert '_add_a_thing_to_nothing.py still contains generated text: "Delete' in found[0]
    assert found[1].endswith("_add_a_thing_to_nothing.py does not say why.")


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (_two_lines, "✗ history: The history has 2 heads: aaaaaaaaaaaa, bbbbbbbbbbbb."),
        (lambda copy: copy.add("op.execute("), "✗ history: The revision files cannot be read"),
        (_no_revision, "✗ history: There is no revision."),
    ],
    ids=["two-heads", "syntax-error", "no-revision"],
)
def test_unreadable_history_ends_the_check(
    copy: Checkout, check: Callable[[], Result], do: Callable[[Checkout], object], message: str
) -> None:
    """If the history is not linear, the other checks do not run, and the output says so."""
    do(copy)
    result = check()
    assert result.code == 1, result.everything
    assert result.checks("✗ fails") == ["history"], result.everything
    assert result.checks("✓ passes") == []
    assert result.checks("-") == CHECKS[1:]
    assert message in result.out
    assert result.err == ""


# ── merged revisions ──────────────────────────────────────────────────────────────────────────────

LAST, FIRST = "isolate_users", "create_better_auth_tables"


@pytest.fixture
def branch(copy: Checkout) -> Checkout:
    """A copy in git, on a branch of main."""
    branch_off(copy)
    return copy


def _change(copy: Checkout) -> None:
    copy.edit(copy.revision(FIRST), "WHY:", "WHY: now")


def _delete(copy: Checkout) -> None:
    copy.revision(LAST).unlink()


def _rename(copy: Checkout) -> None:
    path = copy.revision(LAST)
    path.rename(path.with_name(path.name.replace(LAST, "isolate_everybody")))


@pytest.mark.sample(3)
@pytest.mark.parametrize("committed", [False, True], ids=["uncommitted", "committed"])
@pytest.mark.parametrize(
    ("do", "message"),
    [
        (_change, f"_{FIRST}.py has changed since it was merged ("),
        (_delete, f"_{LAST}.py was deleted since it was merged ("),
        (_rename, f"_{LAST}.py was deleted since it was merged ("),
    ],
    ids=["changed", "deleted", "renamed"],
)
def test_merged_revision_is_immutable(
    run: Launcher,
    branch: Checkout,
    do: Callable[[Checkout], None],
    message: str,
    committed: bool,
) -> None:
    """A revision on the main branch must not change: it may have run on any database."""
    do(branch)
    if committed:
        git(branch, "add", ".")
        git(branch, "commit", "--quiet", "--message=Something")
    result = run.run(branch.root, code=HISTORY_ALONE)
    failures = json.loads(result.out)
    assert message in failures[0][0]
    # A deleted revision leaves a gap, which is a second failure.
    gap = ["The revision files cannot be read"] if do is _delete else []
    assert [failure[0].partition(":")[0] for failure in failures[1:]] == gap, result.everything
    assert "git checkout" in failures[0][1]
    assert "write a new revision" in failures[0][1]


def test_restoring_a_merged_revision_fixes_it(run: Launcher, branch: Checkout) -> None:
    """The command in the remedy restores the revision."""
    _delete(branch)
    failures = json.loads(run.run(branch.root, code=HISTORY_ALONE).out)
    command = failures[0][1].partition("(git ")[2].partition(")")[0]
    git(branch, *command.split())
    assert json.loads(run.run(branch.root, code=HISTORY_ALONE).out) == []


@pytest.mark.parametrize("committed", [False, True], ids=["uncommitted", "committed"])
def test_new_revision_may_still_change(run: Launcher, branch: Checkout, committed: bool) -> None:
    """A revision that is not on the main branch may change."""
    path = branch.add(sql("SELECT 1"), sql("SELECT 2"))
    if committed:
        git(branch, "add", ".")
        git(branch, "commit", "--quiet", "--message=Something")
    branch.edit(path, "SELECT 1", "SELECT 3")
    result = run.run(branch.root, code=HISTORY_ALONE)
    assert json.loads(result.out) == [], result.everything


def test_merge_base_of_a_remote_branch(run: Launcher, branch: Checkout) -> None:
    """The main branch may exist only as a remote branch, as in CI."""
    git(branch, "update-ref", "refs/remotes/origin/main", "main")
    git(branch, "branch", "--quiet", "--delete", "main")
    _change(branch)
    failures = json.loads(run.run(branch.root, code=HISTORY_ALONE).out)
    assert [message for message, _ in failures if "has changed" in message], failures


WITH_CI = 'import os; os.environ["CI"] = "true"\n' + COMMAND


def _without_git(copy: Checkout) -> Path:
    return copy.root


def _shallow(copy: Checkout) -> Path:
    """A clone of a branch's last commit, without main, as actions/checkout makes it."""
    git(copy, "init", "--quiet", "--initial-branch=main")
    for number in (1, 2):
        git(copy, "add", ".")
        git(copy, "commit", "--quiet", "--allow-empty", f"--message={number}")
    git(copy, "switch", "--quiet", "--create=feature")
    git(copy, "commit", "--quiet", "--allow-empty", "--message=3")
    git(copy, "switch", "--quiet", "main")
    clone = copy.root.parent / "clone"
    arguments = ("clone", "--quiet", "--depth=1", "--branch=feature", f"file://{copy.root}")
    git(copy, *arguments, str(clone))
    return clone


def _foreign(copy: Checkout) -> Path:
    """A repository of another user, which git refuses."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    git(copy, "init", "--quiet", "--initial-branch=main")
    for path in (copy.root, copy.root / ".git"):
        os.chown(path, 65534, 65534)
    return copy.root


@pytest.mark.parametrize(
    ("make", "why"),
    [
        pytest.param(_without_git, "the checkout is no git repository", marks=pytest.mark.slow),
        pytest.param(_shallow, "there is no branch main", marks=pytest.mark.slow),
        pytest.param(
            _foreign,
            "git refuses a checkout that belongs to another user",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["no-git", "shallow", "foreign-owner"],
)
def test_what_git_cannot_compare_is_not_called_unchanged(
    run: Launcher,
    copy: Checkout,
    server: Server,
    make: Callable[[Checkout], Path],
    why: str,
) -> None:
    """Without a comparison the check passes with a note, and fails in CI."""
    root = make(copy)
    url = server.maintenance.render_as_string(hide_password=False)
    passed = run.run(root, *CHECK, "--database-url", url)
    assert passed.code == 0, passed.everything
    assert f"one line; merged ones not checked: {why}" in passed.out
    failed = run.run(root, *CHECK, "--database-url", url, code=WITH_CI)
    assert failed.code == 1, failed.everything
    (failure,) = failed.failures
    assert failure.check == "history"
    assert failure.message == f"Merged revisions cannot be compared: {why}."
    assert "fetch-depth: 0" in failure.remedy


def test_revisions_of_one_minute_sort_by_their_parents(run: Launcher, copy: Checkout) -> None:
    """Revisions of the same minute sort in the order of the history."""
    copy.add(revision="bbbbbbbbbbbb")
    child = copy.add(revision="aaaaaaaaaaaa", parents="bbbbbbbbbbbb")
    result = run.run(copy.root, code=HISTORY_ALONE)
    assert [message for message, _ in json.loads(result.out)] == [
        f"{child.name} sorts before 2099_01_01_0000_bbbbbbbbbbbb_change_something.py, which it"
        " follows."
    ]
