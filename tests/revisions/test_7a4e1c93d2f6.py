"""A backfill may leave `updated_at` alone, and the application may not."""

import pytest

from tests.support.revision import Revision

TODO = "INSERT INTO todo (user_id, title, updated_at) VALUES (:alice, 'a', '2001-01-01')"
BACKFILL = ("SET LOCAL app.keep_updated_at = 'on'", "UPDATE todo SET title = 'b'")
AS_APPLICATION = (
    "SELECT set_config('app.user_id', CAST(:alice AS text), true)",
    "SET LOCAL ROLE todo_app",
)
YEAR = "SELECT extract(YEAR FROM updated_at)::int FROM todo"


@pytest.fixture(autouse=True)
def _todo(revision: Revision) -> None:
    """Insert a todo that changed long ago, and let the owner act as the application."""
    revision.before(TODO, "GRANT todo_app TO CURRENT_USER WITH INHERIT FALSE, SET TRUE")


def test_the_owners_backfill_keeps_it(revision: Revision) -> None:
    """The setting is heeded for the owner, after the upgrade and not after the downgrade."""
    revision.upgrade()
    revision.before(*BACKFILL)
    assert revision.rows(YEAR) == [(2001,)]
    revision.downgrade()
    revision.before(*BACKFILL)
    assert revision.rows(YEAR) != [(2001,)]


def test_an_ordinary_change_moves_it(revision: Revision) -> None:
    """Without the setting the owner's change counts, too."""
    revision.upgrade()
    revision.before("UPDATE todo SET title = 'b'")
    assert revision.rows(YEAR) != [(2001,)]


def test_the_application_cannot_keep_it(revision: Revision) -> None:
    """A member of todo_app can set the setting, and it changes nothing."""
    revision.upgrade()
    revision.before(*AS_APPLICATION, *BACKFILL)
    assert revision.rows(YEAR) != [(2001,)]
