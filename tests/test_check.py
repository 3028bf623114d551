"""`schema check` finds what is broken, says what it is and how it is mended.

The theory: for each rule there is a way to break it, and a copy of the repository in which just
that is broken fails: with exit code 1, in the proofs that see it and in no others, with the
message that names it. The copy's own code runs, as the real command, against a real PostgreSQL.

What a revision can do to a database, the rules read from the database: they are broken by SQL on
databases of their own (and, in the slow tier, by a revision in a copy that runs the same SQL).
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import URL

from schema import comments, isolation, ownership
from schema.database import connect
from schema.embedded import Embedded, embedded
from schema.proof import Outcome
from schema.server import Server, given
from tests.checkout import COMMAND, Checkout, Launcher, Result, copy_to, launcher, sql

PROOFS = [
    "history",
    "upgrade head",
    "round trip",
    "models, by Alembic",
    "models, by snapshot",
    "comments",
    "ownership",
    "isolation",
    "generated files",
]
ALEMBIC, SNAPSHOT = "models, by Alembic", "models, by snapshot"

CHECK = ("check", "--no-lint")
"""The command; how SQL is written has tests of its own, and takes longer than all proofs."""

HISTORY_ALONE = """
import dataclasses, json
from schema import history, repository
outcome = history.check(repository.scripts())
print(json.dumps([[one.message, one.remedy] for one in outcome.failures]))
"""

IRREVERSIBLE = 'raise NotImplementedError("This cannot be undone, because a test says so.")'


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """Run commands in copies of the checkout."""
    with launcher(tmp_path_factory.mktemp("launcher")) as opened:
        yield opened


@pytest.fixture
def copy(tmp_path: Path) -> Checkout:
    """A copy of the checkout, of the test's own."""
    return copy_to(tmp_path / "checkout")


@pytest.fixture
def check(run: Launcher, copy: Checkout, server: Server) -> Callable[[], Result]:
    """Run `schema check` in the copy, on the shared server."""
    url = server.maintenance.render_as_string(hide_password=False)
    return lambda: run.run(copy.root, *CHECK, "--database-url", url)


def assert_fails(result: Result, failing: list[str], *fragments: str) -> None:
    """Assert that these proofs failed and no others, and that the page says these things."""
    assert result.code == 1, result.everything
    assert result.proofs("✗ failed") == failing, result.everything
    assert {failure.proof for failure in result.failures} == set(failing), result.everything
    for fragment in fragments:
        assert fragment in result.out, result.everything
    assert f"{len(failing)} of {len(PROOFS)} proofs did not hold" in result.out
    assert "Traceback" not in result.out + result.err, result.everything
    assert result.err == ""


def test_unbroken_copy_passes(check: Callable[[], Result]) -> None:
    """Nothing is found where nothing is broken, and the page names every proof."""
    result = check()
    assert result.code == 0, result.everything
    assert result.proofs("✓ holds") == PROOFS, result.everything
    assert f"All {len(PROOFS)} proofs hold" in result.out
    assert result.failures == []
    assert result.err == ""


# ── history ───────────────────────────────────────────────────────────────────────────────────────


class Break(NamedTuple):
    """One way to break a copy, and what must be said of it: messages in full, or in part."""

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
        (
            "The history has 2 heads: aaaaaaaaaaaa, bbbbbbbbbbbb.",
            "The history branches after",
        ),
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
        ("is not named YYYY_MM_DD_HHMM_<revision>_<slug>.py after its revision, a0b1c2d3e4f5.",),
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
        "Import alembic and sqlalchemy only",
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
        "Undo what upgrade does, or raise NotImplementedError with the reason",
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
        "Mend the file named.",
    ),
    Break(
        "unknown-parent",
        lambda copy: copy.add(parents="ffffffffffff"),
        ("ffffffffffff",),
    ),
    Break("same-revision-twice", _twice, ("a0b1c2d3e4f5",)),
)


@pytest.mark.parametrize("case", HISTORY, ids=lambda case: case.name)
def test_history_rule(run: Launcher, copy: Checkout, case: Break) -> None:
    """Each rule of revision files finds the file that breaks it, and nothing else is found."""
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
    """What the rules allow is not found fault with."""
    do(copy)
    result = run.run(copy.root, code=HISTORY_ALONE)
    assert result.code == 0, result.everything
    assert json.loads(result.out) == [], result.everything


def test_new_revision_from_the_template(run: Launcher, copy: Checkout) -> None:
    """What `alembic revision` writes is no revision yet: its author has to say why."""
    code = "from alembic.config import main; main()"
    made = run.run(copy.root, "revision", "-m", "Add a thing to nothing.", code=code)
    assert made.code == 0, made.everything
    result = run.run(copy.root, code=HISTORY_ALONE)
    found = [message for message, _ in json.loads(result.out)]
    assert len(found) == 2, found
    assert '_add_a_thing_to_nothing.py still holds what a generator wrote: "Delete' in found[0]
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
    """What is no line cannot be tried: the page says so, and does not pretend that it held."""
    do(copy)
    result = check()
    assert result.code == 1, result.everything
    assert result.proofs("✗ failed") == ["history"], result.everything
    assert result.proofs("✓ holds") == []
    assert result.proofs("-") == PROOFS[1:]
    assert message in result.out
    assert result.err == ""


# ── history: what git knows ───────────────────────────────────────────────────────────────────────

LAST, FIRST = "isolate_users", "create_better_auth_tables"


def _git(copy: Checkout, *arguments: str) -> None:
    """Run git in the copy, as nobody's settings would have it."""
    settings = {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": "nobody@example.invalid" for who in ("AUTHOR", "COMMITTER")
           for what in ("NAME", "EMAIL")},
    }  # fmt: skip  # two dimensions on two lines
    subprocess.run(
        ["git", "-C", copy.root, *arguments],
        env=os.environ | settings,
        check=True,
        capture_output=True,
    )


@pytest.fixture
def branch(copy: Checkout) -> Checkout:
    """A copy in git, on a branch off main."""
    _git(copy, "init", "--quiet", "--initial-branch=main")
    _git(copy, "add", ".")
    _git(copy, "commit", "--quiet", "--message=Everything")
    _git(copy, "switch", "--quiet", "--create=feature")
    return copy


def _change(copy: Checkout) -> None:
    copy.edit(copy.revision(FIRST), "WHY:", "WHY: now")


def _delete(copy: Checkout) -> None:
    copy.revision(LAST).unlink()


def _rename(copy: Checkout) -> None:
    path = copy.revision(LAST)
    path.rename(path.with_name(path.name.replace(LAST, "isolate_everybody")))


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
    """A revision that is on the main branch may have run anywhere: it must not change."""
    do(branch)
    if committed:
        _git(branch, "add", ".")
        _git(branch, "commit", "--quiet", "--message=Something")
    result = run.run(branch.root, code=HISTORY_ALONE)
    failures = json.loads(result.out)
    assert message in failures[0][0]
    # What is gone leaves a gap, which is said as well.
    gap = ["The revision files cannot be read"] if do is _delete else []
    assert [failure[0].partition(":")[0] for failure in failures[1:]] == gap, result.everything
    assert "git checkout" in failures[0][1]
    assert "write a new revision" in failures[0][1]


def test_restoring_a_merged_revision_mends_it(run: Launcher, branch: Checkout) -> None:
    """The command that the failure names does what it says."""
    _delete(branch)
    failures = json.loads(run.run(branch.root, code=HISTORY_ALONE).out)
    command = failures[0][1].partition("(git ")[2].partition(")")[0]
    _git(branch, *command.split())
    assert json.loads(run.run(branch.root, code=HISTORY_ALONE).out) == []


@pytest.mark.parametrize("committed", [False, True], ids=["uncommitted", "committed"])
def test_new_revision_may_still_change(run: Launcher, branch: Checkout, committed: bool) -> None:
    """What is not on the main branch yet is nobody's history."""
    path = branch.add(sql("SELECT 1"), sql("SELECT 2"))
    if committed:
        _git(branch, "add", ".")
        _git(branch, "commit", "--quiet", "--message=Something")
    branch.edit(path, "SELECT 1", "SELECT 3")
    result = run.run(branch.root, code=HISTORY_ALONE)
    assert json.loads(result.out) == [], result.everything


def test_merge_base_of_a_remote_branch(run: Launcher, branch: Checkout) -> None:
    """Where the main branch is only known as a remote's, as in CI, it counts as well."""
    _git(branch, "update-ref", "refs/remotes/origin/main", "main")
    _git(branch, "branch", "--quiet", "--delete", "main")
    _change(branch)
    failures = json.loads(run.run(branch.root, code=HISTORY_ALONE).out)
    assert [message for message, _ in failures if "has changed" in message], failures


# ── broken copies, by the whole command ───────────────────────────────────────────────────────────


class Broken(NamedTuple):
    """One way to break a copy: which proofs must fail, and what the page must say."""

    name: str
    do: Callable[[Checkout], object]
    failing: list[str]
    fragments: tuple[str, ...]
    slow: bool = False


def edit(path: str, old: str, new: str) -> Callable[[Checkout], None]:
    """Break a copy by replacing a text of that file, or of the revision of that slug."""
    if path.endswith(".py"):
        return lambda copy: copy.edit(path, old, new)
    return lambda copy: copy.edit(copy.revision(path), old, new)


def revision(up: str, down: str) -> Callable[[Checkout], object]:
    """Break a copy by adding a revision of these two statements."""
    return lambda copy: copy.add(sql(up), sql(down))


FORGETS = "does not restore the schema from before its upgrade."
OTHER_MODELS = "The models build another schema (+) than the migrations do (-)."
OTHER_BY_ALEMBIC = "The models are not what the migrations build; this would lead from one to the"
STALE = "migrations/schema.txt (-) is not what the migrations build (+)."

A_ROW = """INSERT INTO verification (id, identifier, value, "expiresAt")
VALUES ('00000000-0000-0000-0000-000000000000', 'a', 'b', now())"""

ROUND_TRIP = (
    Broken(
        "downgrade-forgets-an-index",
        revision("CREATE INDEX todo_new_idx ON todo (user_id, title)", "SELECT 1"),
        ["round trip", ALEMBIC, SNAPSHOT, "generated files"],
        (FORGETS, "CREATE INDEX todo_new_idx", "Make its downgrade undo exactly what"),
        slow=True,
    ),
    Broken(
        "downgrade-forgets-a-comment",
        revision("COMMENT ON COLUMN todo.title IS 'new'", "SELECT 1"),
        ["round trip", ALEMBIC, SNAPSHOT, "generated files"],
        (FORGETS, "new"),
        slow=True,
    ),
    Broken(
        "downgrade-forgets-a-policy",
        edit(LAST, """op.execute(f'DROP POLICY "{table}_auth" ON "{table}"')""", "pass"),
        ["round trip"],
        (f"The downgrade of 2026_11_22_0920_b93a7e1d5f68_{LAST}.py {FORGETS}", "session_auth"),
    ),
    Broken(
        "downgrade-forgets-a-grant",
        edit(LAST, 'op.execute("REVOKE ALL ON todo FROM todo_app")', "pass"),
        ["round trip"],
        (FORGETS, "grant to todo_app"),
        slow=True,
    ),
    Broken(
        "downgrade-forgets-a-grant-on-the-database",
        edit(LAST, 'database_privilege("GRANT TEMPORARY ON DATABASE %I TO PUBLIC")', "pass"),
        ["round trip"],
        (FORGETS, "TEMPORARY"),
        slow=True,
    ),
    Broken(
        "downgrade-forgets-row-security",
        edit(LAST, """op.execute(f'ALTER TABLE "{table}" DISABLE ROW LEVEL SECURITY')""", "pass"),
        ["round trip"],
        (FORGETS, "row security"),
        slow=True,
    ),
    Broken(
        "downgrade-forgets-to-force-row-security-no-longer",
        edit(LAST, """op.execute(f'ALTER TABLE "{table}" NO FORCE ROW LEVEL SECURITY')""", "pass"),
        ["round trip"],
        (FORGETS, "row security"),
        slow=True,
    ),
    Broken(
        "downgrade-forgets-a-function",
        edit("create_todo", 'op.execute("DROP FUNCTION uuid_v7()")', "pass"),
        ["round trip"],
        (FORGETS, "uuid_v7"),
        slow=True,
    ),
    Broken(
        "downgrade-drops-too-much",
        edit(
            "create_todo",
            "def downgrade() -> None:",
            'def downgrade() -> None:\n    op.drop_table("session")',
        ),
        ["round trip"],
        (FORGETS, "session_userId_idx"),
        slow=True,
    ),
    Broken(
        "downgrade-is-wrong-sql",
        edit("create_todo", "DROP FUNCTION uuid_v7()", "DROP FUNCTION uuid_v8()"),
        ["round trip"],
        (
            "The downgrade of 2026_11_22_0910_8e5d2f6c3b04_create_todo.py fails: function uuid_v8()"
            " does not exist.",
            "DROP FUNCTION uuid_v8()",
            "Mend the revision.",
        ),
        slow=True,
    ),
    Broken(
        "downgrade-raises",
        edit("create_todo", 'op.execute("DROP FUNCTION uuid_v7()")', "op.no_such_operation()"),
        ["round trip"],
        ("The downgrade of 2026_11_22_0910_8e5d2f6c3b04_create_todo.py fails: AttributeError",),
        slow=True,
    ),
    Broken(
        "second-upgrade-fails",
        edit(LAST, "def upgrade() -> None:", f"def upgrade() -> None:\n    {sql(A_ROW)}"),
        ["round trip"],
        (f"The second upgrade of 2026_11_22_0920_b93a7e1d5f68_{LAST}.py fails: duplicate key",),
        slow=True,
    ),
)

TODO, USER, SESSION, FUNCTIONS = (
    f"models/{name}.py" for name in ("todo", "user", "session", "functions")
)
BOTH = [ALEMBIC, SNAPSHOT]


def _extra_table(copy: Checkout) -> None:
    text = (
        '"""An extra table."""\n\nfrom .better_auth import BetterAuthTable\n\n\n'
        'class Extra(BetterAuthTable, table=True):\n    """Extra."""\n'
    )
    (copy.root / "models" / "extra.py").write_text(text, encoding="utf-8")
    copy.edit("models/__init__.py", "from .session", "from .extra import Extra\nfrom .session")


PARITY = (
    Broken(
        "type",
        edit(TODO, "sa_type=Text,", 'sa_type=__import__("sqlalchemy").String(500),'),
        BOTH,
        (OTHER_BY_ALEMBIC, OTHER_MODELS, "character varying(500)", "alembic revision"),
        slow=True,
    ),
    Broken(
        "default",
        edit("models/base.py", 'text("CURRENT_TIMESTAMP")', 'text("clock_timestamp()")'),
        BOTH,
        (OTHER_BY_ALEMBIC, OTHER_MODELS, "clock_timestamp()"),
        slow=True,
    ),
    Broken(
        "comment",
        edit(TODO, "When it should be done", "When it must be done"),
        BOTH,
        (OTHER_BY_ALEMBIC, OTHER_MODELS, "When it must be done"),
        slow=True,
    ),
    Broken(
        "nullable",
        edit(TODO, '"comment": "When it should', '"nullable": False, "comment": "When it should'),
        BOTH,
        (OTHER_BY_ALEMBIC, OTHER_MODELS, "nullable=False", "due_at"),
        slow=True,
    ),
    Broken(
        "check-name",
        edit(TODO, 'name="title_length"', 'name="title_size"'),
        BOTH,
        (OTHER_BY_ALEMBIC, OTHER_MODELS, "todo_title_size_check"),
        slow=True,
    ),
    Broken(
        "check-condition",
        edit(TODO, "char_length(title) <= 500", "char_length(title) <= 501"),
        [SNAPSHOT],
        (OTHER_MODELS, "CHECK (char_length(title) <= 501)"),
        slow=True,
    ),
    Broken(
        "index-missing",
        edit(SESSION, 'Index(None, "expiresAt"),', ""),
        BOTH,
        (OTHER_BY_ALEMBIC, OTHER_MODELS, "session_expiresAt_idx"),
        slow=True,
    ),
    Broken(
        "extra-table",
        _extra_table,
        BOTH,
        (OTHER_BY_ALEMBIC, OTHER_MODELS, "op.create_table('extra'", "table extra"),
        slow=True,
    ),
    Broken(
        "policy-dropped",
        edit(
            "models/ownership.py",
            """f'CREATE POLICY "{name}_owner" ON "{name}" TO {APPLICATION}'
            f" USING (user_id = {ACTING_USER}) WITH CHECK (user_id = {ACTING_USER})",""",
            "",
        ),
        [SNAPSHOT],
        (OTHER_MODELS, "policy todo_owner"),
    ),
    Broken(
        "policy-weakened",
        edit(USER, 'USING (id = {ACTING_USER})"', 'USING (true)"'),
        [SNAPSHOT],
        (OTHER_MODELS, "policy user_self", "using true"),
        slow=True,
    ),
    Broken(
        "grant-added",
        edit(USER, "GRANT SELECT ON", "GRANT SELECT, UPDATE ON"),
        [SNAPSHOT],
        (OTHER_MODELS, "grant to todo_app  SELECT, UPDATE"),
        slow=True,
    ),
    Broken(
        "trigger-missing",
        edit(TODO, '@event.listens_for(todo_table, "after_create")', ""),
        [SNAPSHOT],
        (OTHER_MODELS, "trigger todo_set_updated_at"),
        slow=True,
    ),
    Broken(
        "function-body",
        edit(FUNCTIONS, ":= CURRENT_TIMESTAMP", ":= clock_timestamp()"),
        [SNAPSHOT],
        (OTHER_MODELS, "clock_timestamp()"),
        slow=True,
    ),
    Broken(
        "create-all-fails",
        edit(FUNCTIONS, "RETURNS trigger", "RETURNS triggre"),
        [SNAPSHOT],
        ('metadata.create_all fails: type "triggre" does not exist.', "Mend the models."),
        slow=True,
    ),
)


def _missing(copy: Checkout) -> None:
    copy.snapshot.unlink()


def _of_another_revision(copy: Checkout) -> None:
    copy.edit(copy.snapshot, f"revision {copy.head}", "revision ffffffffffff")


SCHEMA_TXT = (
    Broken(
        "stale",
        edit("migrations/schema.txt.py", "", ""),
        ["generated files"],
        (STALE, "0 to 500 characters", "1 to 500 characters", "Run `schema snapshot`"),
    )._replace(
        do=lambda copy: copy.edit(copy.snapshot, "1 to 500 characters", "0 to 500 characters")
    ),
    Broken(
        "missing", _missing, ["generated files"], ("migrations/schema.txt is missing.",), slow=True
    ),
    Broken(
        "of-another-revision",
        _of_another_revision,
        ["generated files"],
        (STALE, "- revision ffffffffffff", "+ revision "),
        slow=True,
    ),
)

ENTIRE = {"round trip": ROUND_TRIP, "models": PARITY, "generated files": SCHEMA_TXT}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{group}-{case.name}", marks=pytest.mark.slow if case.slow else ())
        for group, cases in ENTIRE.items()
        for case in cases
    ],
)
def test_broken_copy_fails(copy: Checkout, check: Callable[[], Result], case: Broken) -> None:
    """A copy in which one thing is broken fails in the proofs that see it, and in no others."""
    case.do(copy)
    assert_fails(check(), case.failing, *case.fragments)


@pytest.mark.parametrize(
    ("upgrade", "message"),
    [
        (
            sql("CREATE INDEX todo_new_idx ON todo (no_such_column)"),
            'The history does not build from nothing: column "no_such_column" does not exist.',
        ),
        (
            "op.no_such_operation()",
            "The history does not build from nothing: AttributeError:",
        ),
    ],
    ids=["wrong-sql", "raises"],
)
def test_history_that_does_not_build(
    copy: Checkout, check: Callable[[], Result], upgrade: str, message: str
) -> None:
    """Where the upgrade fails, that is what the page says; the rest counts as not tried."""
    copy.add(upgrade, sql("SELECT 1"))
    result = check()
    assert result.code == 1, result.everything
    assert result.proofs("✗ failed") == ["upgrade head"], result.everything
    assert result.proofs("-") == PROOFS[2:]
    assert message in result.out
    assert "Mend the revision that" in result.out
    assert f"{len(PROOFS) - 1} of {len(PROOFS)} proofs did not hold" in result.out


def test_models_that_cannot_be_imported(copy: Checkout, check: Callable[[], Result]) -> None:
    """Models that are no Python are named as such: no revision is blamed."""
    copy.edit(TODO, "class Todo(", "class Todo((")
    result = check()
    assert result.code in {1, 2}, result.everything
    assert "todo.py" in result.out + result.err
    assert "Traceback" not in result.out + result.err
    assert "Mend the revision" not in result.out


def test_irreversible_revision_is_accepted(copy: Checkout, check: Callable[[], Result]) -> None:
    """A downgrade that raises with its reason is not tried, and the page counts it."""
    copy.add(sql("UPDATE todo SET title = trim(title)"), IRREVERSIBLE)
    copy.edit(copy.snapshot, copy.head, "a0b1c2d3e4f5")
    copy.edit("models/version.py", f"+{copy.head}", "+a0b1c2d3e4f5")
    copy.edit("models/version.py", f'"{copy.head}",', f'"{copy.head}",\n    "a0b1c2d3e4f5",')
    result = check()
    assert result.code == 0, result.everything
    assert "; 1 irreversible" in result.out
    assert result.proofs("✓ holds") == PROOFS


# ── ownership and isolation, by SQL on a database at head ─────────────────────────────────────────

NOTE = """
CREATE TABLE note (
  user_id uuid NOT NULL REFERENCES "user" ON DELETE CASCADE,
  id uuid NOT NULL DEFAULT uuid_v7(),
  title text NOT NULL,
  PRIMARY KEY (user_id, id)
);
ALTER TABLE note ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY note_owner ON note TO todo_app USING (user_id = (SELECT app_user_id()));
GRANT SELECT, INSERT, UPDATE, DELETE ON note TO todo_app;
"""
"""An owned table as it should be; some of the cases break it."""


def note(old: str, new: str) -> str:
    """Break the good owned table by replacing a text that must be there."""
    assert old in NOTE
    return NOTE.replace(old, new)


class Rule(NamedTuple):
    """One way to break a database: the messages, in full, of all that ownership finds."""

    name: str
    sql: str
    messages: tuple[str, ...]
    isolated: bool = True
    """Whether users are still kept apart, or isolation must fail as well."""


NOT_IDENTITY = "does not compare user_id with (SELECT app_user_id())."
NOT_REFERENCE = (
    'user_id is not a validated, NOT NULL reference to "user" that cascades on deletion.'
)
OWNERS_RIGHTS = "which runs with its owner's rights."
DEFINER = "LANGUAGE sql SECURITY DEFINER RETURN (SELECT count(*) FROM todo)"

OWNERSHIP = (
    Rule(
        "table-of-nobody",
        "CREATE TABLE word (id uuid PRIMARY KEY)",
        ("Table word is neither a user's own nor Better Auth's.",),
    ),
    Rule(
        "table-of-nobody-in-another-schema",
        "CREATE SCHEMA other; CREATE TABLE other.todo (id uuid PRIMARY KEY)",
        ("Table other.todo is neither a user's own nor Better Auth's.",),
    ),
    Rule(
        "row-security-not-forced",
        "ALTER TABLE todo NO FORCE ROW LEVEL SECURITY",
        ("Row security is not enabled and forced on table todo.",),
    ),
    Rule(
        "row-security-not-enabled",
        "ALTER TABLE todo DISABLE ROW LEVEL SECURITY",
        ("Row security is not enabled and forced on table todo.",),
        isolated=False,
    ),
    Rule(
        "row-security-not-enabled-on-better-auths",
        "ALTER TABLE session DISABLE ROW LEVEL SECURITY",
        ("Row security is not enabled and forced on table session.",),
        isolated=False,
    ),
    Rule(
        "no-policy",
        "DROP POLICY todo_owner ON todo",
        ("Table todo has no policy.",),
        isolated=False,
    ),
    Rule(
        "no-policy-on-better-auths",
        "DROP POLICY session_auth ON session",
        ("Table session has no policy.",),
        isolated=False,
    ),
    Rule(
        "another-policy-lets-all-rows-through",
        "CREATE POLICY todo_all ON todo FOR SELECT TO todo_app USING (true)",
        (f"Policy todo_all on table todo {NOT_IDENTITY}",),
        isolated=False,
    ),
    Rule(
        "policy-checks-nothing",
        "ALTER POLICY todo_owner ON todo WITH CHECK (true)",
        (f"Policy todo_owner on table todo {NOT_IDENTITY}",),
        isolated=False,
    ),
    Rule(
        "policy-calls-its-function-for-each-row",
        "ALTER POLICY todo_owner ON todo USING (user_id = app_user_id())",
        (f"Policy todo_owner on table todo {NOT_IDENTITY}",),
    ),
    Rule(
        "key-does-not-lead-with-its-user",
        note("PRIMARY KEY (user_id, id)", "PRIMARY KEY (id, user_id)"),
        (
            "The primary key of table note does not lead with user_id.",
            "No index leads with the columns of foreign key note_user_id_fkey on note:"
            ' FOREIGN KEY (user_id) REFERENCES "user"(id) ON DELETE CASCADE.',
        ),
    ),
    Rule(
        "no-key",
        note("PRIMARY KEY (user_id, id)", "UNIQUE (user_id, id)"),
        ("The primary key of table note does not lead with user_id.",),
        isolated=False,  # ON CONFLICT needs the key
    ),
    Rule(
        "reference-does-not-cascade",
        note("ON DELETE CASCADE", ""),
        (f"note.{NOT_REFERENCE}",),
        isolated=False,
    ),
    Rule(
        "no-reference", note('REFERENCES "user" ON DELETE CASCADE', ""), (f"note.{NOT_REFERENCE}",)
    ),
    Rule(
        "reference-is-not-valid",
        note('REFERENCES "user" ON DELETE CASCADE', "")
        + "ALTER TABLE note ADD FOREIGN KEY (user_id)"
        + ' REFERENCES "user" ON DELETE CASCADE NOT VALID',
        (f"note.{NOT_REFERENCE}",),
    ),
    Rule(
        "reference-without-its-owner",
        note("title text NOT NULL,", "title text NOT NULL, todo uuid,")
        + "ALTER TABLE note ADD COLUMN whose uuid;"
        + "ALTER TABLE note ADD FOREIGN KEY (whose, todo) REFERENCES todo ON DELETE CASCADE;"
        + "CREATE INDEX ON note (whose, todo)",
        (
            "Foreign key note_whose_todo_fkey on table note references an owned table without its"
            " user_id.",
        ),
    ),
    Rule(
        "unindexed-foreign-key",
        note("title text NOT NULL,", "title text NOT NULL, todo uuid,")
        + "ALTER TABLE note ADD FOREIGN KEY (user_id, todo) REFERENCES todo ON DELETE CASCADE",
        (
            "No index leads with the columns of foreign key note_user_id_todo_fkey on note:"
            " FOREIGN KEY (user_id, todo) REFERENCES todo(user_id, id) ON DELETE CASCADE.",
        ),
    ),
    Rule(
        "partially-indexed-foreign-key",
        'DROP INDEX "session_userId_idx";'
        "CREATE INDEX ON session (\"userId\") WHERE token > 'a';"
        'CREATE INDEX ON session (token, "userId")',
        (
            "No index leads with the columns of foreign key session_userId_fkey on session:"
            ' FOREIGN KEY ("userId") REFERENCES "user"(id) ON DELETE CASCADE.',
        ),
    ),
    Rule("truncate", "GRANT TRUNCATE ON todo TO todo_app", ("todo_app has TRUNCATE on todo.",)),
    Rule(
        "references-and-trigger",
        "GRANT REFERENCES, TRIGGER ON todo TO todo_app",
        ("todo_app has REFERENCES, TRIGGER on todo.",),
    ),
    Rule("maintain", "GRANT MAINTAIN ON todo TO todo_app", ("todo_app has MAINTAIN on todo.",)),
    Rule(
        "application-reads-sessions",
        "GRANT SELECT ON session TO todo_app",
        ("todo_app has SELECT on session.",),
    ),
    Rule(
        "application-reads-one-column",
        "GRANT SELECT (token) ON session TO todo_app",
        ("todo_app has SELECT on session.",),
    ),
    Rule(
        "application-changes-one-column-of-user",
        'GRANT UPDATE (email) ON "user" TO todo_app',
        ("todo_app has UPDATE on user.",),
    ),
    Rule(
        "application-changes-alembics-table",
        "GRANT UPDATE ON alembic_version TO todo_app",
        ("todo_app has UPDATE on alembic_version.",),
    ),
    Rule(
        "better-auth-reads-todos",
        "GRANT SELECT ON todo TO todo_auth",
        ("todo_auth has SELECT on todo.",),
    ),
    Rule(
        "public-has-a-table",
        "GRANT SELECT ON todo TO PUBLIC",
        ("todo_auth has SELECT on todo.", "PUBLIC has SELECT on table todo."),
    ),
    Rule(
        "public-has-a-column",
        "GRANT SELECT (title) ON todo TO PUBLIC",
        ("todo_auth has SELECT on todo.", "PUBLIC has SELECT on column todo.title."),
    ),
    Rule(
        "public-has-a-function",
        "GRANT EXECUTE ON FUNCTION app_user_id() TO PUBLIC",
        ("PUBLIC has EXECUTE on function app_user_id().",),
    ),
    Rule(
        "public-has-every-new-function",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql RETURN 1",
        ("PUBLIC has EXECUTE on function one().",),
    ),
    Rule(
        "public-has-the-schema",
        "GRANT USAGE ON SCHEMA public TO PUBLIC",
        ("PUBLIC has USAGE on schema public.",),
    ),
    Rule(
        "public-creates-in-the-schema",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        (
            "PUBLIC has CREATE on schema public.",
            "todo_app has CREATE on schema public.",
            "todo_auth has CREATE on schema public.",
        ),
    ),
    Rule(
        "public-has-temporary-tables",
        "DO $$BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', current_database());"
        " END$$",
        (
            "PUBLIC has TEMPORARY on the database.",
            "todo_app has TEMPORARY on the database.",
            "todo_auth has TEMPORARY on the database.",
        ),
    ),
    Rule(
        "application-creates-schemas",
        "DO $$BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO todo_app', current_database());"
        " END$$",
        ("todo_app has CREATE on the database.",),
    ),
    Rule(
        "view-with-its-owners-rights",
        "CREATE VIEW everything AS SELECT * FROM todo; GRANT SELECT ON everything TO todo_app",
        (f"todo_app may use view everything, {OWNERS_RIGHTS}",),
    ),
    Rule(
        "materialized-view",
        "CREATE MATERIALIZED VIEW everything AS SELECT * FROM todo;"
        " GRANT SELECT ON everything TO todo_app",
        (
            "todo_app has SELECT on everything.",
            f"todo_app may use materialized view everything, {OWNERS_RIGHTS}",
        ),
    ),
    Rule(
        "function-with-its-owners-rights",
        f"CREATE FUNCTION every() RETURNS bigint {DEFINER};"
        " REVOKE ALL ON FUNCTION every() FROM PUBLIC;"
        " GRANT EXECUTE ON FUNCTION every() TO todo_app",
        (f"todo_app may use SECURITY DEFINER function every(), {OWNERS_RIGHTS}",),
    ),
    Rule(
        "everybodys-function-with-its-owners-rights",
        f"CREATE FUNCTION every() RETURNS bigint {DEFINER}",
        (
            "PUBLIC has EXECUTE on function every().",
            f"todo_app may use SECURITY DEFINER function every(), {OWNERS_RIGHTS}",
            f"todo_auth may use SECURITY DEFINER function every(), {OWNERS_RIGHTS}",
        ),
    ),
    Rule(
        "rule",
        "CREATE RULE watch AS ON UPDATE TO todo DO ALSO SELECT 1",
        (f"todo_app may use rule watch on todo, {OWNERS_RIGHTS}",),
        isolated=False,  # MERGE and ON CONFLICT do not work with rules
    ),
)

OWN = "it should reach the acting user's rows."
ISOLATION = (
    Rule(
        "better-auths-user-table-lets-all-rows-through",
        'CREATE POLICY user_all ON "user" FOR SELECT TO todo_app USING (true)',
        (
            f"SELECT on user as todo_app reaches everybody's rows; {OWN}",
            f"COPY … TO on user as todo_app reaches everybody's rows; {OWN}",
            "Rows of user are seen as nobody.",
        ),
    ),
    Rule(
        "nobody-is-somebody",
        "CREATE OR REPLACE FUNCTION app_user_id() RETURNS uuid LANGUAGE sql STABLE RETURN coalesce("
        "nullif(current_setting('app.user_id', true), '')::uuid,"
        " gen_random_uuid())",
        ("A transaction that names nobody acts for somebody.",),
    ),
    Rule(
        "garbage-is-nobody",
        "CREATE OR REPLACE FUNCTION app_user_id() RETURNS uuid LANGUAGE sql STABLE RETURN CASE WHEN"
        " current_setting('app.user_id', true) ~ '^[0-9a-f-]{36}$'"
        " THEN current_setting('app.user_id', true)::uuid END",
        ("An identity that is no uuid reads todo.",),
    ),
    Rule(
        "application-may-not-delete-its-own",
        "REVOKE DELETE ON todo FROM todo_app",
        (f"DELETE on todo as todo_app reaches no row; {OWN}",),
    ),
    Rule(
        "application-may-not-read-its-own",
        "REVOKE SELECT ON tag FROM todo_app",
        ("permission denied for table tag",),
    ),
    Rule(
        "application-may-not-ask-whom-it-acts-for",
        "REVOKE EXECUTE ON FUNCTION app_user_id() FROM todo_app",
        ("permission denied for function app_user_id",),
    ),
    Rule(
        "application-may-not-enter-the-schema",
        "REVOKE USAGE ON SCHEMA public FROM todo_app",
        ("permission denied for schema public",),
    ),
)

CHILD = (
    NOTE.replace("note", "step")
    .replace("title text NOT NULL,", "todo_id uuid NOT NULL, name varchar(5) NOT NULL UNIQUE,")
    .replace("\n);", ",\n  FOREIGN KEY (user_id, todo_id) REFERENCES todo ON DELETE CASCADE\n);")
) + "CREATE INDEX ON step (user_id, todo_id);"

COMMENTS = (
    Rule("table", "COMMENT ON TABLE todo IS NULL", ("TABLE todo has no comment.",)),
    Rule(
        "column",
        """COMMENT ON COLUMN "user"."emailVerified" IS ' '""",
        ('COLUMN "user"."emailVerified" has no comment.',),
    ),
    Rule(
        "function",
        "COMMENT ON FUNCTION app_user_id() IS NULL",
        ("FUNCTION app_user_id() has no comment.",),
    ),
    Rule(
        "new-view",
        "CREATE VIEW titles AS SELECT title FROM todo",
        ("COLUMN titles.title has no comment.", "TABLE titles has no comment."),
    ),
)

GOOD = (
    Rule("unchanged", "SELECT 1", ()),
    Rule("owned-table", NOTE, ()),
    Rule("owned-child-of-an-owned-table", CHILD, ()),
    Rule(
        "view-with-its-users-rights",
        "CREATE VIEW open_todo WITH (security_invoker = true) AS"
        " SELECT * FROM todo WHERE completed_at IS NULL; GRANT SELECT ON open_todo TO todo_app",
        (),
    ),
    Rule(
        "function-with-its-users-rights",
        "CREATE FUNCTION every() RETURNS bigint LANGUAGE sql RETURN (SELECT count(*) FROM todo);"
        " REVOKE ALL ON FUNCTION every() FROM PUBLIC;"
        " GRANT EXECUTE ON FUNCTION every() TO todo_app",
        (),
    ),
    Rule(
        "restrictive-policy",
        "CREATE POLICY todo_again ON todo AS RESTRICTIVE TO todo_app"
        " USING (user_id = (SELECT app_user_id()))",
        (),
    ),
)


def execute(url: URL, statements: str) -> None:
    """Run a script, past SQLAlchemy: its colons and per cent signs are SQL's."""
    with connect(url, autocommit=True) as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute(statements)


def messages(outcome: Outcome) -> list[str]:
    """List what failed."""
    assert all(failure.remedy for failure in outcome.failures)
    return [failure.message for failure in outcome.failures]


@pytest.mark.parametrize("rule", OWNERSHIP, ids=lambda rule: rule.name)
def test_ownership_rule(head: URL, rule: Rule) -> None:
    """Each rule of ownership finds what breaks it, and nothing else; isolation where rows leak."""
    execute(head, rule.sql)
    assert sorted(messages(ownership.check(head))) == sorted(rule.messages)
    assert (messages(isolation.check(isolation.find(head))) == []) is rule.isolated


@pytest.mark.parametrize("rule", ISOLATION, ids=lambda rule: rule.name)
def test_isolation_finds_what_no_rule_does(head: URL, rule: Rule) -> None:
    """What lets a user see or lose rows is found by trying, though every rule is obeyed."""
    execute(head, rule.sql)
    assert messages(ownership.check(head)) == []
    found = messages(isolation.check(isolation.find(head)))
    assert found
    for message in rule.messages:
        assert any(message in one for one in found), found


@pytest.mark.parametrize("rule", COMMENTS, ids=lambda rule: rule.name)
def test_everything_is_described(head: URL, rule: Rule) -> None:
    """What has no comment is missing from the data dictionary, and is found."""
    assert messages(comments.check(head)) == []
    execute(head, rule.sql)
    assert messages(comments.check(head)) == list(rule.messages)


@pytest.mark.parametrize("rule", GOOD, ids=lambda rule: rule.name)
def test_ownership_accepts(head: URL, rule: Rule) -> None:
    """What keeps users apart is not found fault with."""
    execute(head, rule.sql)
    assert messages(ownership.check(head)) == []
    assert messages(isolation.check(isolation.find(head))) == []


QUICK_COPIES = {
    "another-policy-lets-all-rows-through",
}
"""Of the cases above, those that the quick tier tries by the whole command too."""


@pytest.mark.parametrize(
    ("rule", "proof"),
    [
        pytest.param(
            rule,
            proof,
            id=f"{proof}-{rule.name}",
            marks=() if rule.name in QUICK_COPIES else pytest.mark.slow,
        )
        for proof, rules in (
            ("ownership", OWNERSHIP),
            ("isolation", ISOLATION),
            ("comments", COMMENTS),
        )
        for rule in rules
    ],
)
def test_revision_that_breaks_a_rule(  # noqa: PLR0913, PLR0917  # each is a fixture
    run: Launcher,
    copy: Checkout,
    check: Callable[[], Result],
    server: Server,
    rule: Rule,
    proof: str,
) -> None:
    """The same, by a revision: the command fails in that proof, though schema.txt is fresh."""
    copy.add(sql(rule.sql), IRREVERSIBLE)
    url = server.maintenance.render_as_string(hide_password=False)
    fresh = run.run(copy.root, "snapshot", "--database-url", url, code=COMMAND)
    assert fresh.code == 0, fresh.everything
    result = check()
    assert result.code == 1, result.everything
    failed = set(result.proofs("✗ failed"))
    assert proof in failed, result.everything
    assert not failed & {"history", "upgrade head", "round trip", "generated files"}, (
        result.everything
    )
    for message in rule.messages:
        assert message in result.out, result.everything


# ── roles belong to the cluster: these have a server of their own ─────────────────────────────────


@pytest.fixture(scope="module")
def own_server() -> Iterator[Embedded]:
    """A server on which a test may change the group roles."""
    with embedded() as started:
        yield started


@pytest.fixture(scope="module")
def own_head(own_server: Embedded, run: Launcher, tmp_path_factory: pytest.TempPathFactory) -> URL:
    """A database at head on that server."""
    copy = copy_to(tmp_path_factory.mktemp("own") / "checkout")
    with given(own_server.owner) as server:
        execute(server.maintenance, "CREATE DATABASE head")
    url = own_server.owner.set(database="head")
    code = (
        "import os, alembic.config;"
        f"os.environ['DATABASE_URL'] = {url.render_as_string(hide_password=False)!r};"
        "alembic.config.main(['upgrade', 'head'])"
    )
    result = run.run(copy.root, code=code)
    assert result.code == 0, result.everything
    return url


ROLES = {
    "superuser": (
        "ALTER ROLE todo_app SUPERUSER",
        "ALTER ROLE todo_app NOSUPERUSER",
        "SUPERUSER",
    ),
    "bypassrls": ("ALTER ROLE todo_app BYPASSRLS", "ALTER ROLE todo_app NOBYPASSRLS", "BYPASSRLS"),
    "login": ("ALTER ROLE todo_app LOGIN", "ALTER ROLE todo_app NOLOGIN", "LOGIN"),
    "createrole": (
        "ALTER ROLE todo_app CREATEROLE",
        "ALTER ROLE todo_app NOCREATEROLE",
        "CREATEROLE",
    ),
    "createdb": ("ALTER ROLE todo_app CREATEDB", "ALTER ROLE todo_app NOCREATEDB", "CREATEDB"),
    "replication": (
        "ALTER ROLE todo_app REPLICATION",
        "ALTER ROLE todo_app NOREPLICATION",
        "REPLICATION",
    ),
    "member": (
        "GRANT pg_read_all_settings TO todo_app",
        "REVOKE pg_read_all_settings FROM todo_app",
        "membership in pg_read_all_settings",
    ),
}


@pytest.mark.parametrize(("broken", "mended", "what"), ROLES.values(), ids=ROLES.keys())
def test_group_role_has_too_much(
    own_server: Embedded, own_head: URL, broken: str, mended: str, what: str
) -> None:
    """A group role that could see around row security is found, by rule and at every upgrade."""
    superuser = own_server.superuser.set(database="head")
    assert messages(ownership.check(own_head)) == []
    execute(superuser, broken)
    try:
        assert any(
            one.startswith("todo_app has ") and what in one
            for one in messages(ownership.check(own_head))
        )
    finally:
        execute(superuser, mended)


def test_group_role_owns_something(own_server: Embedded, own_head: URL) -> None:
    """A group role that owns a table ignores its row security."""
    superuser = own_server.superuser.set(database="head")
    execute(superuser, NOTE + "ALTER TABLE note OWNER TO todo_app")
    try:
        found = messages(ownership.check(own_head))
        assert any("todo_app has ownership of note" in message for message in found), found
    finally:
        execute(superuser, "DROP TABLE note")


def test_upgrade_refuses_a_role_that_has_too_much(
    own_server: Embedded, own_head: URL, run: Launcher, copy: Checkout
) -> None:
    """A role of that name that somebody else made with more rights is not granted anything."""
    execute(own_server.superuser.set(database=own_head.database), "ALTER ROLE todo_auth BYPASSRLS")
    try:
        url = own_server.owner.render_as_string(hide_password=False)
        result = run.run(copy.root, *CHECK, "--database-url", url)
    finally:
        execute(own_server.superuser, "ALTER ROLE todo_auth NOBYPASSRLS")
    assert result.code == 1, result.everything
    assert result.proofs("✗ failed") == ["upgrade head"]
    assert "role todo_auth has attributes or memberships that it must not have" in result.out
