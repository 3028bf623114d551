"""Two people add a revision to the same head; the second one merges, and runs `schema rebase`.

With real git, in a copy of the checkout.
"""

import subprocess
from collections.abc import Callable

import pytest

from schema.postgres.scratch import Server
from tests.support.repo_copy import Checkout, Launcher, Result, sql

FIRST = "aaaaaaaaaaaa"
SECOND = "bbbbbbbbbbbb"
THIRD = "cccccccccccc"


def git(copy: Checkout, *arguments: str, fails: bool = False) -> str:
    """Run git in the copy."""
    done = subprocess.run(
        ["git", "-c", "user.name=A", "-c", "user.email=a@example.invalid", *arguments],
        cwd=copy.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) is fails, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def function(copy: Checkout, revision: str, name: str, parent: str = "", day: int = 1) -> None:
    """Add a revision that makes a function, which the models make too, and what follows from it."""
    create = f"CREATE FUNCTION {name}() RETURNS int LANGUAGE sql RETURN 1"
    comment = f"COMMENT ON FUNCTION {name}() IS 'A test needs it'"
    revoke = f"REVOKE ALL ON FUNCTION {name}() FROM PUBLIC"
    copy.add(
        sql(create, comment, revoke),
        sql(f"DROP FUNCTION {name}()"),
        revision=revision,
        parents=parent,
        name=f"2099_01_0{day}_0000_{revision}_add_{name}.py",
    )
    module = f'''"""A function of a test."""

from sqlalchemy import event, text

from .base import metadata


@event.listens_for(metadata, "after_create")
def create(_metadata, connection, **_options):
    """Create it."""
    for statement in ({create!r}, {comment!r}, {revoke!r}):
        connection.execute(text(statement))
'''
    (copy.root / "models" / f"{name}.py").write_text(module, "utf-8")
    file = copy.root / "models" / "__init__.py"
    file.write_text(file.read_text("utf-8") + f"\nfrom . import {name} as {name}\n", "utf-8")


@pytest.fixture
def schema(run: Launcher, copy: Checkout, server: Server) -> Callable[..., Result]:
    """Run the `schema` command in the copy."""
    url = server.maintenance.render_as_string(hide_password=False)
    return lambda *arguments: run.run(copy.root, *arguments, "--database-url", url)


@pytest.fixture
def two(copy: Checkout, schema: Callable[..., Result]) -> Checkout:
    """A branch with two revisions, into which main, with another one, is merged with conflicts."""
    (copy.root / ".gitignore").write_text("__pycache__/\n.venv/\n")
    git(copy, "init", "-q", "-b", "main")
    git(copy, "add", "-A")
    git(copy, "commit", "-q", "-m", "Begin")
    git(copy, "switch", "-q", "-c", "mine")
    function(copy, SECOND, "mine", day=1)
    function(copy, THIRD, "mine_too", parent=SECOND, day=2)
    assert schema("snapshot").code == 0
    git(copy, "add", "-A")
    git(copy, "commit", "-q", "-m", "Mine")
    git(copy, "switch", "-q", "main")
    function(copy, FIRST, "theirs", day=3)
    assert schema("snapshot").code == 0
    git(copy, "add", "-A")
    git(copy, "commit", "-q", "-m", "Theirs")
    git(copy, "switch", "-q", "mine")
    said = git(copy, "merge", "main", fails=True)
    for file in ("migrations/schema.txt", "models/version.py", "models/__init__.py"):
        assert f"Merge conflict in {file}" in said
    return copy


def resolve(copy: Checkout) -> None:
    """Resolve the conflict in the file that people write."""
    file = copy.root / "models" / "__init__.py"
    lines = file.read_text("utf-8").splitlines(keepends=True)
    file.write_text("".join(one for one in lines if one[:7] not in {"<" * 7, "=" * 7, ">" * 7}))


@pytest.mark.slow
def test_two_people(two: Checkout, schema: Callable[..., Result]) -> None:
    """The unmerged revisions follow the merged one, in their order; every check passes."""
    before = {path.name: path.read_text() for path in two.versions.glob(f"*{FIRST}*")}
    refused = schema("rebase")
    assert (refused.code, refused.out) == (2, "")
    assert "Resolve the conflicts in models/__init__.py first" in refused.err
    resolve(two)
    result = schema("rebase")
    assert result.code == 0, result.everything
    parents = {}
    for path in two.versions.glob("2099*.py"):
        for line in path.read_text().splitlines():
            if line.startswith("down_revision"):
                parents[path.name.split("_")[4]] = line.partition(" = ")[2].strip("'\"")
    assert parents == {FIRST: two.head, SECOND: FIRST, THIRD: SECOND}
    assert {path.name: path.read_text() for path in two.versions.glob(f"*{FIRST}*")} == before
    for word in (FIRST, SECOND, "migrations/schema.txt", "models/version.py", "schema serve"):
        assert word in result.out
    git(two, "add", "-A")
    git(two, "commit", "-q", "--no-edit")
    assert "<<<<<<<" not in git(two, "grep", "-l", "revision", "--", "migrations", "models")
    checked = schema("check", "--no-lint")
    assert checked.code == 0, checked.everything
    again = schema("rebase")
    assert again.out == "Nothing to do: the revisions follow main, and every file is up to date.\n"


@pytest.mark.slow
def test_what_does_not_build_together(two: Checkout, schema: Callable[..., Result]) -> None:
    """If the two histories contradict each other, nothing is changed."""
    resolve(two)
    (path,) = two.versions.glob(f"*{SECOND}*")
    two.edit(path, "CREATE FUNCTION mine()", "CREATE FUNCTION theirs()")
    before = {one: one.read_bytes() for one in two.root.rglob("*") if one.is_file()}
    result = schema("rebase")
    assert result.code == 2
    assert "The history does not build" in result.err, result.everything
    after = {one: one.read_bytes() for one in two.root.rglob("*") if one.is_file()}
    assert {
        one for one in before.keys() | after.keys() if before.get(one) != after.get(one)
    } == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "form", ['down_revision: str | None = "{}"', 'down_revision = (\n    "{}"\n)']
)
def test_other_ways_to_write_a_parent(
    two: Checkout, schema: Callable[..., Result], form: str
) -> None:
    """Only the value is replaced, whatever stands around it."""
    resolve(two)
    (path,) = two.versions.glob(f"*{SECOND}*")
    two.edit(path, f"down_revision = {two.head!r}", form.format(two.head))
    result = schema("rebase")
    assert result.code == 0, result.everything
    (path,) = two.versions.glob(f"*{SECOND}*")
    assert form.format(FIRST) in path.read_text("utf-8")


def test_main_is_not_merged_yet(copy: Checkout, schema: Callable[..., Result]) -> None:
    """Before a merge it is refused, and the sentence says to merge."""
    git(copy, "init", "-q", "-b", "main")
    git(copy, "add", "-A")
    git(copy, "commit", "-q", "-m", "Begin")
    git(copy, "switch", "-q", "-c", "mine")
    git(copy, "switch", "-q", "main")
    function(copy, FIRST, "theirs")
    git(copy, "add", "-A")
    git(copy, "commit", "-q", "-m", "Theirs")
    git(copy, "switch", "-q", "mine")
    result = schema("rebase")
    assert result.code == 2
    assert "git merge main" in result.err, result.everything


def test_without_git(copy: Checkout, schema: Callable[..., Result]) -> None:
    """Without a repository it is refused in a sentence."""
    result = schema("rebase")
    assert result.code == 2, result.everything
    assert "The merged revisions cannot be found: the checkout is no git repository" in result.err
    assert copy.snapshot.exists()
