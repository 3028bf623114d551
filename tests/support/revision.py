"""One revision, to be tried on rows that a test chooses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alembic.script import Script
from sqlalchemy import URL, text

from schema.postgres.connection import connect
from schema.project import scripts
from schema.revisions.history import revisions_oldest_first
from schema.revisions.runner import downgrade_step, run, upgrade_step
from tests.support.users import ALICE, BOB

USERS = {"alice": ALICE, "bob": BOB}
"""The parameters that every statement of a test may name."""


@dataclass(frozen=True)
class Revision:
    """A revision, and a database at the one before it, in which two users have signed up."""

    script: Script
    url: URL

    def before(self, *statements: str) -> None:
        """Execute statements as the owner; `:alice` and `:bob` are the users' ids."""
        with connect(self.url) as connection:
            for statement in statements:
                connection.execute(text(statement), USERS)
            connection.commit()

    def upgrade(self) -> None:
        """Apply the revision."""
        with connect(self.url) as connection:
            run(connection, scripts(), lambda _: [upgrade_step(scripts(), self.script)])

    def downgrade(self) -> None:
        """Revert it."""
        with connect(self.url) as connection:
            run(connection, scripts(), lambda _: [downgrade_step(scripts(), self.script)])

    def rows(self, query: str) -> Sequence[tuple[Any, ...]]:
        """Return the rows of a query."""
        with connect(self.url) as connection:
            return [tuple(row) for row in connection.execute(text(query), USERS)]


def at_parent_of(revision: str, url: URL) -> Revision:
    """Upgrade an empty database to the revision before that one, and sign two users up."""
    directory = scripts()
    before: list[Script] = []
    for script in revisions_oldest_first(directory):
        if script.revision == revision:
            break
        before.append(script)
    else:
        raise LookupError(f"no revision {revision}")
    with connect(url) as connection:
        run(connection, directory, lambda _: [upgrade_step(directory, one) for one in before])
    found = Revision(script, url)
    if before:
        found.before(
            "INSERT INTO \"user\" (id, name, email) VALUES (:alice, 'a', 'a@example.invalid'),"
            " (:bob, 'b', 'b@example.invalid')"
        )
    return found
