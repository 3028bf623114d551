"""Check the policies with pgrls: its linter, and its solver, which proves isolation.

Accepted findings are listed with the reason; any other finding fails, and so does an unused entry.
"""

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from models import metadata
from models.access import declared_access
from schema.postgres.connection import connect

PGRLS = Path(sysconfig.get_path("scripts")) / "pgrls"

ANY_ROW = (
    "Better Auth reads all users' rows before it knows the user; the policy is for its role only"
)
DECLARED = {
    name: access
    for name, table in metadata.tables.items()
    if (access := declared_access(table)) is not None
}
BETTER_AUTHS = [name for name, access in DECLARED.items() if access.kind == "Better Auth"]
OWNED = {f"public.{name}" for name, access in DECLARED.items() if access.kind == "owned"}
SHARED = {
    name
    for name, access in DECLARED.items()
    if access.kind in {"shared", "membership", "reference"}
}
TOUCHED = [
    name
    for name, table in metadata.tables.items()
    if DECLARED[name].kind in {"owned", "shared"} and "updated_at" in table.columns
]
ACCEPTED = {
    ("SEC001", "public.alembic_version"): "it names the revision and holds no user's row",
    **{
        ("SEC001", f"public.{name}"): "a reference table: every user reads all rows"
        for name, access in DECLARED.items()
        if access.kind == "reference"
    },
    **{
        ("PERF003", f"public.{name}.{rule.policy}"): "its sub-select runs once for a statement"
        for name, access in DECLARED.items()
        if access.kind == "shared"
        for rule in access.rules[1:]
    },
    **{
        (rule, f"public.{table}.{table}_auth"): ANY_ROW
        for rule in ("SEC005", "SEC008", "SEC028", "SEC038")
        for table in BETTER_AUTHS
    },
    **{
        ("SEC007", f"public.{name}"): "there is one policy for each role: nothing to combine"
        for name, access in DECLARED.items()
        if access.row_security
    },
    **{
        ("SEC013", f"public.{table}.{table}_set_updated_at"): "it sets one column and reads nothing"
        for table in TOUCHED
    },
    **{
        ("SEC016", role): "Neon's own roles have it: nobody who holds a group role may be one"
        for role in ("neon_superuser", "neondb_owner")
    },
    **{
        ("HYG002", f"public.{name}.{rule.policy}"): "todo is the table's name, not a note"
        for name, access in DECLARED.items()
        if "todo" in name
        for rule in access.rules
    },
}


def pgrls(url: URL, folder: Path, *arguments: str) -> dict[str, Any]:
    """Run pgrls on a database, and return its JSON document."""
    settings = folder / "pgrls.toml"
    settings.write_text('[lint.rules.SEC021]\nidentity_columns = ["user_id", "id"]\n')
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    done = subprocess.run(
        [PGRLS, *arguments, "--database-url", address, "--config", settings, "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def verdicts(url: URL, folder: Path, mode: str) -> dict[str, str]:
    """Return the solver's verdict on each table."""
    document = pgrls(url, folder, "verify", "--mode", mode, "--auth-function", "app_user_id")
    return {table["table"]: table["verdict"] for table in document["tables"]}


def test_the_linter_finds_what_is_accepted_and_nothing_else(head: URL, tmp_path: Path) -> None:
    """The linter has exactly the accepted findings."""
    violations = pgrls(head, tmp_path, "lint", "--schemas", "public")["violations"]
    found = {(one["rule_id"], one["location"]) for one in violations}
    assert found - ACCEPTED.keys() == set()
    if "neondb_owner" in str(head):
        assert ACCEPTED.keys() - found == set()


@pytest.mark.parametrize("mode", ["cross-tenant", "write"])
def test_the_solver_proves_that_owned_tables_are_isolated(
    head: URL, tmp_path: Path, mode: str
) -> None:
    """The solver proves that no session can read or write another user's row."""
    found = verdicts(head, tmp_path, mode)
    assert {found[table] for table in OWNED} == {"isolated"}
    # What is shared on purpose is tried on rows of members instead.
    assert "leak" not in {found[f"public.{name}"] for name in DECLARED.keys() - SHARED}


def test_the_solver_proves_that_no_identity_reads_nothing(head: URL, tmp_path: Path) -> None:
    """A session without an identity or without a role can read no row."""
    found = verdicts(head, tmp_path, "anon")
    assert {found[f"public.{name}"] for name in DECLARED.keys() - SHARED} == {"isolated"}


@pytest.mark.parametrize(
    ("mode", "mutation"),
    [
        ("cross-tenant", "USING (user_id = (SELECT app_user_id()) OR created_at = '2026-01-01')"),
        pytest.param(
            "write",
            "WITH CHECK (user_id = (SELECT app_user_id()) OR created_at = '2026-01-01')",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_solver_finds_a_hole(head: URL, tmp_path: Path, mode: str, mutation: str) -> None:
    """The solver reports a policy whose condition shows other users' rows."""
    table = min(OWNED).removeprefix("public.")
    with connect(head, autocommit=True) as connection:
        connection.exec_driver_sql(f'ALTER POLICY "{table}_owner" ON "{table}" {mutation}')
    assert verdicts(head, tmp_path, mode)[f"public.{table}"] == "leak"
