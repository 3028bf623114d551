"""The history is one line that goes up, goes down, and builds what the models say.

These are pytest-alembic's own four tests, imported by name: under pytest 9.2 it cannot bind them
to a file itself. They see less than `schema check` (no policy, grant, function or trigger), but
they are somebody else's: what they find, we overlooked.
"""

from pytest_alembic.tests import (
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)

__all__ = [
    "test_model_definitions_match_ddl",
    "test_single_head_revision",
    "test_up_down_consistency",
    "test_upgrade",
]
