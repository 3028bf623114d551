"""`schema check` reports each broken rule and its remedy.

The theory: a copy of the repository in which one rule is broken fails with exit code 1, only in the
checks that cover the rule, and with its message. The real command runs the copy's own code.

test_history_rules.py and test_ownership_rules.py cover the rules of those checks.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from schema.postgres.scratch import Server
from tests.support.repo_copy import CHECKS, IRREVERSIBLE, Checkout, Launcher, Result, sql

USERS, FIRST = "isolate_users", "create_better_auth_tables"
ALEMBIC, SNAPSHOT = "autogenerate", "create_all"


def assert_fails(result: Result, failing: list[str], *fragments: str) -> None:
    """Assert that only these checks failed, and that the output contains the fragments."""
    assert result.code == 1, result.everything
    assert result.checks("✗ fails") == failing, result.everything
    assert {failure.check for failure in result.failures} == set(failing), result.everything
    for fragment in fragments:
        assert fragment in result.out, result.everything
    assert f"{len(failing)} of {len(CHECKS)} checks failed" in result.out
    assert "Traceback" not in result.out + result.err, result.everything
    assert result.err == ""


def test_unbroken_copy_passes(check: Callable[[], Result]) -> None:
    """An unbroken copy has no failure, and the output names every check."""
    result = check()
    assert result.code == 0, result.everything
    assert result.checks("✓ passes") == CHECKS, result.everything
    assert f"All {len(CHECKS)} checks pass" in result.out
    assert result.failures == []
    assert result.err == ""


# ── broken copies, by the whole command ───────────────────────────────────────────────────────────


class Broken(NamedTuple):
    """One way to break a copy, the checks that must fail, and the expected output."""

    name: str
    do: Callable[[Checkout], object]
    failing: list[str]
    fragments: tuple[str, ...]
    slow: bool = False


def edit(path: str, old: str, new: str) -> Callable[[Checkout], None]:
    """Break a copy by replacing a text in that file, or in the revision with that slug."""
    if path.endswith(".py"):
        return lambda copy: copy.edit(path, old, new)
    return lambda copy: copy.edit(copy.revision(path), old, new)


def revision(up: str, down: str) -> Callable[[Checkout], object]:
    """Break a copy by adding a revision with these two statements."""
    return lambda copy: copy.add(sql(up), sql(down))


FORGETS = "does not restore the schema from before its upgrade."
OTHER_MODELS = "The models build a different schema (+) than the migrations (-)."
OTHER_BY_ALEMBIC = "The models and the migrations differ; autogenerate would write this revision."
STALE = "migrations/schema.txt (-) is not what the migrations build (+)."

A_ROW = """INSERT INTO verification (id, identifier, value, "expiresAt")
VALUES ('00000000-0000-0000-0000-000000000000', 'a', 'b', now())"""

ROUND_TRIP = (
    Broken(
        "downgrade-forgets-an-index",
        revision("CREATE INDEX todo_new_idx ON todo (user_id, title)", "SELECT 1"),
        ["round trip", ALEMBIC],
        (FORGETS, "CREATE INDEX todo_new_idx", "Make its downgrade undo exactly what"),
        slow=True,
    ),
    Broken(
        "downgrade-forgets-a-comment",
        revision("COMMENT ON COLUMN todo.title IS 'new'", "SELECT 1"),
        ["round trip", ALEMBIC],
        (FORGETS, "new"),
        slow=True,
    ),
    Broken(
        "downgrade-forgets-a-policy",
        edit(USERS, """op.execute(f'DROP POLICY "{table}_auth" ON "{table}"')""", "pass"),
        ["round trip"],
        (f"The downgrade of 2026_11_22_0920_b93a7e1d5f68_{USERS}.py {FORGETS}", "session_auth"),
    ),
    Broken(
        "downgrade-forgets-a-grant",
        edit(USERS, 'op.execute("REVOKE ALL ON todo FROM todo_app")', "pass"),
        ["round trip"],
        (FORGETS, "grant to todo_app"),
        slow=True,
    ),
    Broken(
        "downgrade-forgets-a-grant-on-the-database",
        edit(USERS, 'database_privilege("GRANT TEMPORARY ON DATABASE %I TO PUBLIC")', "pass"),
        ["round trip"],
        (FORGETS, "TEMPORARY"),
        slow=True,
    ),
    Broken(
        "downgrade-forgets-row-security",
        edit(USERS, """op.execute(f'ALTER TABLE "{table}" DISABLE ROW LEVEL SECURITY')""", "pass"),
        ["round trip"],
        (FORGETS, "row security"),
        slow=True,
    ),
    Broken(
        "downgrade-forgets-to-force-row-security-no-longer",
        edit(USERS, """op.execute(f'ALTER TABLE "{table}" NO FORCE ROW LEVEL SECURITY')""", "pass"),
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
            "Fix the revision.",
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
        edit(USERS, "def upgrade() -> None:", f"def upgrade() -> None:\n    {sql(A_ROW)}"),
        ["round trip"],
        (f"The second upgrade of 2026_11_22_0920_b93a7e1d5f68_{USERS}.py fails: duplicate key",),
        slow=True,
    ),
)

TODO, USER, SESSION, FUNCTIONS = (
    f"models/{name}.py" for name in ("todo", "user", "session", "functions")
)


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
        [ALEMBIC],
        (OTHER_BY_ALEMBIC, "type_=sa.String(length=500)", "schema revision -m"),
        slow=True,
    ),
    Broken(
        "default",
        edit("models/base.py", 'text("CURRENT_TIMESTAMP")', 'text("clock_timestamp()")'),
        [ALEMBIC],
        (OTHER_BY_ALEMBIC, "clock_timestamp()"),
        slow=True,
    ),
    Broken(
        "long-name",
        edit(TODO, '"todo_open_idx"', f'"{"todo_" * 13}"'),
        [ALEMBIC],
        ("The models cannot be compared: Identifier", "exceeds maximum length of 63"),
        slow=True,
    ),
    Broken(
        "comment",
        edit(TODO, "When it should be done", "When it must be done"),
        [ALEMBIC],
        (OTHER_BY_ALEMBIC, "When it must be done"),
        slow=True,
    ),
    Broken(
        "nullable",
        edit(TODO, '"comment": "When it should', '"nullable": False, "comment": "When it should'),
        [ALEMBIC],
        (OTHER_BY_ALEMBIC, "nullable=False", "due_at"),
        slow=True,
    ),
    Broken(
        "check-name",
        edit(TODO, 'name="title_length"', 'name="title_size"'),
        [ALEMBIC],
        (OTHER_BY_ALEMBIC, "todo_title_size_check"),
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
        [ALEMBIC],
        (OTHER_BY_ALEMBIC, "session_expiresAt_idx"),
        slow=True,
    ),
    Broken(
        "extra-table",
        _extra_table,
        [ALEMBIC],
        (OTHER_BY_ALEMBIC, "op.create_table('extra'"),
        slow=True,
    ),
    Broken(
        "policy-dropped",
        edit(
            "models/access.py",
            "            yield _policy(table.name, rule)",
            "            pass",
        ),
        [SNAPSHOT],
        (OTHER_MODELS, "policy todo_owner"),
    ),
    Broken(
        "policy-weakened",
        edit(USER, '"id = {me}"', '"true"'),
        [SNAPSHOT, "isolation"],
        (OTHER_MODELS, "policy user_self", "using true"),
        slow=True,
    ),
    Broken(
        "grant-added",
        edit("models/access.py", '"SELECT" if rule', '"SELECT, UPDATE" if rule'),
        [SNAPSHOT],
        (OTHER_MODELS, "grant to todo_app  SELECT, UPDATE"),
        slow=True,
    ),
    Broken(
        "trigger-missing",
        edit("models/ownership.py", "if issubclass(mapper.class_, Owned):", "if False:"),
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
        ('metadata.create_all fails: type "triggre" does not exist.', "Fix the models."),
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
    """A broken copy fails in the checks that cover the rule, and in no others."""
    case.do(copy)
    assert_fails(check(), case.failing, *case.fragments)


@pytest.mark.parametrize(
    ("upgrade", "message"),
    [
        (
            sql("CREATE INDEX todo_new_idx ON todo (no_such_column)"),
            'The upgrade of an empty database fails: column "no_such_column" does not exist.',
        ),
        (
            "op.no_such_operation()",
            "The upgrade of an empty database fails: AttributeError:",
        ),
    ],
    ids=["wrong-sql", "raises"],
)
def test_history_that_does_not_build(
    copy: Checkout, check: Callable[[], Result], upgrade: str, message: str
) -> None:
    """If the upgrade fails, the output says so, and the other checks do not run."""
    copy.add(upgrade, sql("SELECT 1"))
    result = check()
    assert result.code == 1, result.everything
    assert result.checks("✗ fails") == ["upgrade head"], result.everything
    assert result.checks("-") == CHECKS[2:]
    assert message in result.out
    assert "  → Fix th" in result.out
    assert f"1 of {len(CHECKS)} checks failed, and {len(CHECKS) - 2} did not run" in result.out


def test_models_that_cannot_be_imported(copy: Checkout, check: Callable[[], Result]) -> None:
    """An invalid model is reported as such, not as a failing revision."""
    copy.edit(TODO, "class Todo(", "class Todo((")
    result = check()
    assert result.code in {1, 2}, result.everything
    assert "todo.py" in result.out + result.err
    assert "Traceback" not in result.out + result.err
    assert "Fix the revision" not in result.out


@pytest.mark.slow
def test_irreversible_revision_is_accepted(
    run: Launcher, server: Server, copy: Checkout, check: Callable[[], Result]
) -> None:
    """A downgrade that raises with a reason does not run, and the output counts it."""
    copy.add(sql("UPDATE todo SET description = title WHERE false"), IRREVERSIBLE)
    url = server.maintenance.render_as_string(hide_password=False)
    assert run.run(copy.root, "snapshot", "--database-url", url).code == 0
    result = check()
    assert result.code == 0, result.everything
    assert "; 1 irreversible" in result.out
    assert result.checks("✓ passes") == CHECKS
