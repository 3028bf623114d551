"""The recipes of migrations/README.md work as written, through the checks that an author meets."""

import re

import pytest

from schema.postgres.scratch import Server
from schema.project import ROOT
from tests.support.load import follow, recipes
from tests.support.repo_copy import Checkout, Launcher


@pytest.mark.slow
def test_an_owned_table(run: Launcher, copy: Checkout, server: Server) -> None:
    """With the README's model and revision, which nothing is added to, every check passes."""
    readme = (ROOT / "migrations" / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## An owned table")[2]
    model, revision = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    revision = revision.replace('"HEAD"', f'"{copy.head}"')
    (copy.versions / "2099_01_01_0000_0123456789ab_create_note.py").write_text(revision)
    (copy.root / "models" / "note.py").write_text(model)
    copy.edit("models/__init__.py", "from .session", "from .note import Note\nfrom .session")
    copy.edit("models/__init__.py", '    "NotIsolated', '    "Note",\n    "NotIsolated')
    url = server.maintenance.render_as_string(hide_password=False)
    written = run.run(copy.root, "snapshot", "--database-url", url)
    assert written.code == 0, written.everything
    assert "policy note_owner" in (copy.root / "migrations" / "schema.txt").read_text()
    assert "| `note` | own | own | own | own | no |" in (copy.root / "models/README.md").read_text()
    checked = run.run(copy.root, "check", "--database-url", url)
    assert checked.code == 0, checked.everything


@pytest.mark.slow
@pytest.mark.parametrize("last", [None, "A backfill"], ids=["as-written", "backfill-last"])
def test_the_recipes_pass_the_check(
    run: Launcher, copy: Checkout, server: Server, last: str | None
) -> None:
    """A history of all recipes passes `schema check`.

    The backfill is irreversible: as written, the lint meets the downgrades above it, and with it at
    the end it meets none.
    """
    ordered = sorted(recipes().items(), key=lambda one: one[0] == last)
    for _, recipe in ordered:
        for code in recipe.good:
            follow(copy, code)
    url = server.maintenance.render_as_string(hide_password=False)
    result = run.run(copy.root, "check", "--database-url", url)
    # The models and the committed snapshot do not have the recipes' columns.
    expected = {"history", "upgrade head", "round trip", "comments", "isolation", "SQL lint"}
    failures = [one for one in result.failures if one.check in expected]
    assert expected <= set(result.checks("✓ passes")), failures or result.everything
    assert re.search(r"round trip +\d+ revisions up, down, up", result.out)
