"""The database at head, where columns that came later do not stand in the tests' way."""

from tests.support.later_defaults import head_template, later_defaults

__all__ = ["head_template", "later_defaults"]
