"""A correct change needs a model, a revision and `schema snapshot`, and nothing else.

The theory: no checker, list or test knows the tables of this schema by name. So every change of
`tests/support/changes.py`, made to a copy, passes every check, the lint and the tests of the schema
there; and a mistake in such a change is found as it would be in a table that exists.
"""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from schema.postgres.connection import connect
from schema.postgres.embedded import embedded
from schema.postgres.scratch import Server
from tests.support.changes import CHANGES, Change, member_of
from tests.support.repo_copy import IRREVERSIBLE, Checkout, Launcher, Result, equip, sql

BY_NAME = {change.name: change for change in CHANGES}
QUICK = {"shared list with members"}
"""The changes that the quick tier makes."""


@pytest.fixture
def changed(run: Launcher, copy: Checkout, server: Server) -> Callable[..., Callable[..., Result]]:
    """Make a change in the copy and write what follows from it; return its `schema` command."""
    url = server.maintenance.render_as_string(hide_password=False)

    def make(change: Change, *, formatted: bool = False) -> Callable[..., Result]:
        change.apply(copy, formatted=formatted)
        written = run.run(copy.root, "snapshot", "--database-url", url)
        assert written.code == 0, written.everything
        return lambda *arguments: run.run(copy.root, *arguments, "--database-url", url)

    return make


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in BY_NAME],
)
def test_every_check_passes(changed: Callable[..., Callable[..., Result]], name: str) -> None:
    """Every check passes after the change."""
    result = changed(BY_NAME[name])("check", "--no-lint")
    assert result.code == 0, result.everything


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_tests_of_the_schema_pass(
    changed: Callable[..., Callable[..., Result]], copy: Checkout, name: str
) -> None:
    """The tests of the schema pass after the change, in a checkout of its own."""
    changed(BY_NAME[name])
    equip(copy)
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    path = os.pathsep.join((str(copy.root), str(copy.root / "scripts")))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "tests/schema"],
        cwd=copy.root,
        env=own | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_lint_passes(
    changed: Callable[..., Callable[..., Result]], copy: Checkout, name: str
) -> None:
    """`scripts/check` with its SQL lint, and `scripts/lint`, are green after the change."""
    schema = changed(BY_NAME[name], formatted=True)
    equip(copy)
    done = subprocess.run(
        ["scripts/lint", "--fix"], cwd=copy.root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = schema("check")
    assert result.code == 0, result.everything


LEAKS = {
    # The leak that a trial with nullable columns left NULL, and without members, cannot see.
    "item-of-any-list": (member_of("list_item", "list_id"), "list_item.list_id IS NOT NULL"),
    "former-member": (" AND m.ended_at IS NULL)", ")"),
    "any-members-list": ("m.member_id = (SELECT app_user_id())", "m.member_id IS NOT NULL"),
    "reader-writes": (" AND m.may_write", ""),
    "another-owners-list-of-that-id": (
        "(list_item.user_id, list_item.list_id) IN (SELECT m.user_id, m.list_id",
        "list_item.list_id IN (SELECT m.list_id",
    ),
    "nobody-may-write": (" AND m.may_write", " AND NOT m.may_write"),
    "no-member-sees-it": ("m.member_id = (SELECT app_user_id())", "false"),
}
"""Policies of shared tables that are wrong: what is replaced, and by what."""

UNSEEN = {
    "another-owners-list-of-that-id": "ids are random: two owners' lists never share one",
    "any-members-list": "row security shows the member no membership but their own",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEAKS)
def test_a_wrong_policy_of_a_shared_table_is_found(
    changed: Callable[..., Callable[..., Result]], name: str
) -> None:
    """Rows of members of each sort show whether a policy says what the model declares."""
    old, new = LEAKS[name]
    change = BY_NAME["shared list with members"]
    policies = [one for one in change.upgrade if "CREATE POLICY" in one and old in one]
    assert policies
    upgrade = tuple(one.replace(old, new) if one in policies else one for one in change.upgrade)
    schema = changed(Change(change.name, upgrade, change.downgrade, change.models))
    result = schema("check", "--no-lint")
    assert result.code == 1, result.everything
    seen = "isolation" in result.checks("✗ fails")
    assert seen is (name not in UNSEEN), result.everything


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "fragment"),
    [
        ("GRANT INSERT ON country TO todo_app", "todo_app has INSERT on country."),
        pytest.param(
            "GRANT DELETE ON country TO PUBLIC",
            "PUBLIC has DELETE on table country.",
        ),
        pytest.param(
            "REVOKE SELECT ON country FROM todo_app",
            "permission denied for table country",
        ),
        pytest.param(
            "GRANT SELECT ON country TO todo_auth",
            "todo_auth reaches rows of country",
        ),
    ],
)
def test_a_wrong_grant_on_a_reference_table_is_found(
    changed: Callable[..., Callable[..., Result]], statement: str, fragment: str
) -> None:
    """The application reads every row of a reference table, and nobody writes one."""
    change = BY_NAME["reference table with rows"]
    schema = changed(
        Change(change.name, (*change.upgrade, statement), change.downgrade, change.models)
    )
    result = schema("check", "--no-lint")
    assert result.code == 1
    assert fragment in result.out, result.everything


FILLS = (
    "DO $$ BEGIN PERFORM set_config(\\'app.keep_updated_at\\', \\'on\\', true);"
    " PERFORM set_config(\\'row_security\\', \\'off\\', true);"
    " UPDATE todo SET description = title WHERE description IS NULL; END $$"
)
ADDED = "ALTER TABLE todo ADD COLUMN added text"
DESCRIBED = "COMMENT ON COLUMN todo.added IS 'What a test adds'"
DROPPED = "ALTER TABLE todo DROP COLUMN added"


HURTING = (
    (
        (ADDED + " CHECK (added IN ('open', 'done'))", "UPDATE todo SET added = 'opne'"),
        (DROPPED,),
        "",
        "violates check constraint",
    ),
    (
        ("ALTER TABLE todo ALTER COLUMN description SET NOT NULL",),
        ("ALTER TABLE todo ALTER COLUMN description DROP NOT NULL",),
        "",
        'assumes = {"table": "condition that every row meets"}',
    ),
    (
        ("UPDATE todo SET title = upper(title)",),
        ("UPDATE todo SET title = lower(title)",),
        "",
        "lose the values of todo.title",
    ),
    (
        ("UPDATE todo SET title = title",),
        ("SELECT 1",),
        "",
        "todo.updated_at has changed",
    ),
    (
        ("DELETE FROM todo WHERE completed_at IS NOT NULL",),
        ("SELECT 1",),
        "",
        "lose the rows of todo",
    ),
    (
        (ADDED, DESCRIBED),
        (DROPPED,),
        'loses = {"todo.title": "it does not"}',
        "declares that it loses todo.title, but it does not",
    ),
    (
        ("UPDATE todo SET title = 'x'",),
        ("SELECT 1",),
        'loses = {"todo.title": " ", "todo.updated_at": "it moves"}',
        "loses todo.title without a reason",
    ),
    (
        ("SELECT 1",),
        ("SELECT 1",),
        'assumes = {"nothing": "true"}',
        "assumes cannot be tried",
    ),
)
"""Upgrade, downgrade, what the revision declares, and what the failure says."""

HURTS = dict(
    zip(
        (
            "backfill-violates-a-check",
            "not-null-over-null",
            "values-not-restored",
            "backfill-moves-updated-at",
            "rows-not-restored",
            "declared-loss-is-not-true",
            "loss-without-a-reason",
            "assumption-of-no-table",
        ),
        HURTING,
        strict=True,
    )
)
QUICK_HURTS = {"values-not-restored"}


@pytest.mark.parametrize(
    ("upgrade", "downgrade", "attributes", "fragment"),
    [
        pytest.param(*case, id=name, marks=() if name in QUICK_HURTS else pytest.mark.slow)
        for name, case in HURTS.items()
    ],
)
def test_a_revision_that_hurts_rows(  # noqa: PLR0913, PLR0917  # fixtures and a case
    run: Launcher,
    copy: Checkout,
    server: Server,
    upgrade: tuple[str, ...],
    downgrade: tuple[str, ...],
    attributes: str,
    fragment: str,
) -> None:  # fmt: skip  # fixtures and a case
    """A revision that fails on rows, or loses what was in them, fails the round trip."""
    path = copy.add(sql(*upgrade), sql(*downgrade))
    if attributes:
        copy.edit(path, "\n\ndef upgrade", f"\n{attributes}\n\n\ndef upgrade")
    url = server.maintenance.render_as_string(hide_password=False)
    result = run.run(copy.root, "check", "--no-lint", "--database-url", url)
    assert "round trip" in result.checks("✗ fails"), result.everything
    assert fragment in result.out, result.everything


BLIND = (
    "SELECT set_config('app.keep_updated_at', 'on', true)",
    "UPDATE todo SET description = title WHERE description IS NULL",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "autocommit"),
    [
        ("", False),
        pytest.param(
            "SELECT set_config('row_security', 'off', true)", False, marks=pytest.mark.slow
        ),
        pytest.param("", True, marks=pytest.mark.slow),
        pytest.param(
            "SELECT set_config('row_security', 'off', false)", True, marks=pytest.mark.slow
        ),
    ],
)
def test_a_backfill_that_is_blind(
    run: Launcher,
    copy: Checkout,
    server: Server,
    first: str,
    *,
    autocommit: bool,
) -> None:
    """An owner that obeys row security would change nothing: it must get an error instead."""
    body = sql(*([first] if first else []), *BLIND)
    if autocommit:
        body = sql("CREATE INDEX CONCURRENTLY todo_new_idx ON todo (user_id, title)", *BLIND)
        body = sql(first, *BLIND) if first else body
        body = "with op.get_context().autocommit_block():\n        " + body.replace(
            "\n    ", "\n        "
        )
    copy.add(body, IRREVERSIBLE)
    url = server.maintenance.render_as_string(hide_password=False)
    result = run.run(copy.root, "check", "--no-lint", "--database-url", url)
    assert ("changes no row of todo if the owner obeys row security" in result.out) is (
        not first
    ), result.everything


@pytest.mark.slow
def test_a_reference_table_that_is_dropped_later(
    run: Launcher, copy: Checkout, server: Server
) -> None:
    """Its rows came with its revision, so no others are made, though no model declares it now."""
    path = copy.add(
        sql(
            "CREATE TABLE country (code text CONSTRAINT country_pkey PRIMARY KEY)",
            "INSERT INTO country (code) VALUES ('FR')",
        ),
        sql("DROP TABLE country"),
    )
    copy.add(
        sql(
            "DO $$ BEGIN ASSERT (SELECT count(*) FROM country) = 1; END $$",
            "DROP TABLE country",
        ),
        sql(
            "CREATE TABLE country (code text CONSTRAINT country_pkey PRIMARY KEY)",
            "INSERT INTO country (code) VALUES ('FR')",
        ),
        revision="b0b1c2d3e4f5",
        parents="a0b1c2d3e4f5",
    )
    assert path.exists()
    url = server.maintenance.render_as_string(hide_password=False)
    result = run.run(copy.root, "check", "--no-lint", "--database-url", url)
    assert "round trip" in result.checks("✓ passes"), result.everything


@pytest.mark.slow
def test_a_member_by_a_column_that_is_not_there(
    changed: Callable[..., Callable[..., Result]], copy: Checkout
) -> None:
    """The message names the model's table and the misspelt column."""
    schema = changed(BY_NAME["shared list with members"])
    copy.edit("models/lists.py", 'ended="ended_at"', 'ended="endet_at"')
    result = schema("check", "--no-lint")
    expected = "todo_list: shared_with names list_member.endet_at, which is no column"
    assert expected in result.out, result.everything


@pytest.mark.slow
def test_an_irreversible_loss_is_declared(run: Launcher, copy: Checkout, server: Server) -> None:
    """What an upgrade deletes for good is a loss as well; a value where none was is not."""
    url = server.maintenance.render_as_string(hide_password=False)
    path = copy.add(sql("DELETE FROM todo"), IRREVERSIBLE)
    result = run.run(copy.root, "check", "--no-lint", "--database-url", url)
    assert "lose the rows of todo" in result.out, result.everything
    path.write_text(path.read_text().replace("DELETE FROM todo", FILLS))
    result = run.run(copy.root, "check", "--no-lint", "--database-url", url)
    assert "round trip" in result.checks("✓ passes"), result.everything


@pytest.mark.slow
def test_an_owner_that_obeys_row_security(run: Launcher, copy: Checkout) -> None:
    """Without BYPASSRLS the owner is blind on forced tables; rows are made and compared anyway."""
    copy.add(sql("UPDATE todo SET title = 'x'"), sql("SELECT 1"))
    with embedded() as started:
        template = started.superuser.set(database="template1")
        with connect(template, autocommit=True) as connection:
            connection.exec_driver_sql("CREATE ROLE plain LOGIN CREATEDB CREATEROLE")
            connection.exec_driver_sql("ALTER SCHEMA public OWNER TO plain")
        url = started.owner.set(username="plain")
        address = url.render_as_string(hide_password=False)
        result = run.run(copy.root, "check", "--no-lint", "--database-url", address)
    # The update touches no row, so nothing is lost.
    assert "up, down, up, with rows in every table;" in result.out, result.everything
    assert "isolation" in result.checks("✓ passes"), result.everything


@pytest.mark.slow
def test_what_is_assumed_is_true_in_the_check(
    run: Launcher, copy: Checkout, server: Server
) -> None:
    """With the assumption declared, the same constraint passes over rows that meet it."""
    path = copy.add(
        sql("ALTER TABLE todo ALTER COLUMN description SET NOT NULL"),
        sql("ALTER TABLE todo ALTER COLUMN description DROP NOT NULL"),
    )
    assumed = 'assumes = {"todo": "description IS NOT NULL"}'
    copy.edit(path, "\n\ndef upgrade", f"\n{assumed}\n\n\ndef upgrade")
    url = server.maintenance.render_as_string(hide_password=False)
    result = run.run(copy.root, "check", "--no-lint", "--database-url", url)
    assert "round trip" in result.checks("✓ passes"), result.everything
