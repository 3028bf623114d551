"""The four tests of pytest-alembic: one head, upgrade, downgrade, models equal the migrations.

They are imported by name, because pytest-alembic cannot collect them itself under pytest 9.2. They
check independently of `schema check`; the models are compared by the plugin of `schema revision`.
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
