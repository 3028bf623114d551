"""The recipes of migrations/README.md: the review blocks each bad one, and lets each good one pass.

The theory: an author who follows the project's own advice must not be stopped by the project's own
review, and one who does what it warns of must be. Each recipe's bad code runs on a copy of the
database to which the good code of the recipes before it has been applied, on rows.
"""

import textwrap

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import URL

from schema.access.declared import declared_samples
from schema.postgres.connection import connect
from schema.postgres.scratch import Server
from schema.review import findings
from schema.review.execution.databases import Ground
from schema.review.execution.walk import walk
from schema.review.policy import Policy, accept
from schema.review.pull_request import PullRequest
from schema.review.result import Finding
from schema.revisions.history import revisions_oldest_first
from schema.revisions.runner import upgrade
from schema.rows.generator import Generator
from schema.rows.tables import read_tables
from tests.support.load import follow, recipes
from tests.support.repo_copy import IRREVERSIBLE, Checkout

ROWS = 2_000

BLOCKED = {
    "A column": "fails",
    "A default": "rewrite",
    "A backfill": "backfill",
    "An index": "scan",
    "A CHECK": "scan",
    "A FOREIGN KEY": "scan",
    "NOT NULL": "scan",
    "UNIQUE": "scan",
}
"""The kind of finding that each recipe's bad code must have."""


def run(copy: Checkout, url: URL, new: int) -> list[Finding]:
    """Review the last revisions of the copy, so many of them, on that database."""
    directory = ScriptDirectory(str(copy.root / "migrations"))
    ordered = revisions_oldest_first(directory)
    pull_request = PullRequest("0" * 40, directory, ordered[:-new], ordered[-new:])
    walked = walk(Ground(url, generated=True), pull_request, lambda _step: None)
    return list(accept(findings.of_walk(walked, pull_request.new, Policy()), pull_request.new))


def as_revision(bad: str) -> str:
    """Return a recipe's bad code as the functions of a revision."""
    if "def upgrade" in bad:
        return bad
    body = textwrap.indent(bad, "    ")
    return f"def upgrade() -> None:\n{body}\n\ndef downgrade():\n    {IRREVERSIBLE}\n"


@pytest.mark.slow
def test_recipes(copy: Checkout, server: Server) -> None:
    """Each bad one blocks for the reason that it names; no good one does."""
    assert BLOCKED.keys() == recipes().keys()
    with server.database() as url:
        with connect(url) as connection:
            upgrade(connection, ScriptDirectory(str(copy.root / "migrations")))
            generator = Generator(connection, read_tables(connection), samples=declared_samples())
            generator.spread({"user": 5, "todo": ROWS})
            connection.commit()
        for name, recipe in recipes().items():
            with server.database(url) as other:
                follow(copy, as_revision(recipe.bad))
                blocking = [one.kind for one in run(copy, other, 1) if one.blocking]
                assert BLOCKED[name] in blocking, (name, blocking)
                max(copy.versions.glob("2099*.py")).unlink()
            for code in recipe.good:
                follow(copy, code)
            found = run(copy, url, len(recipe.good))
            assert [one for one in found if one.blocking] == [], name
