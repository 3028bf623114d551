"""What a revision declares for the review: texts by name, in a module variable."""

from collections.abc import Mapping
from pathlib import Path

from alembic.script import Script

from schema.errors import CannotRunError

EXAMPLES = {
    "loses": '{"table.column": "why that is right"}',
    "assumes": '{"table": "condition on its rows"}',
    "accepts": '{"scan table": "why that is right"}',
}
"""What may be declared, each with an example."""


def declared(revision: Script, what: str) -> Mapping[str, str]:
    """Return what a revision declares in one of EXAMPLES; nothing if it has no such variable.

    Raises:
        CannotRunError: it is no dict of texts.

    """
    found = getattr(revision.module, what, {})
    if isinstance(found, dict) and all(
        isinstance(one, str) for pair in found.items() for one in pair
    ):
        return found
    kind = "condition" if what == "assumes" else "reason"
    raise CannotRunError(
        f"`{what}` of {Path(revision.path).name} must give a {kind} for each name:"
        f" {what} = {EXAMPLES[what]}."
    )
