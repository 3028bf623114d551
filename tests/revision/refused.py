"""The changes of tests/snapshot/changes.sql that no revision is written for, with the reasons."""

import re

REFUSED = {
    "an object of this kind has no statement": (
        r"aggregate: .*|collation: .*|operator.*|cast: .*|conversion: .*|text search: .*"
        r"|language: .*|publication: .*|statistics: kinds|rule: disabled"
        r"|type: (attribute|order|range).*"
    ),
}


def reason(name: str) -> str | None:
    """Return why a change is refused; None if a revision is written for it."""
    return next((why for why, names in REFUSED.items() if re.fullmatch(names, name)), None)
