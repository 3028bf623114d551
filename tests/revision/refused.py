"""The changes of tests/snapshot/changes.sql that no revision is written for, with the reasons."""

import re

REFUSED = {
    "an object of this kind has no statement": (
        r"aggregate: (?!comment).*|collation: created|operator: (?!comment).*|cast: (?!comment).*"
        r"|conversion: .*|text search: (?!comment).*|publication: (?!comment).*|statistics: kinds"
        r"|rule: disabled|type: (attribute.*|order.*|range.*)"
    ),
    "its values are other ones than the models say": r"type: enum value renamed",
    "what is dropped is part of a publication, which has no statement": r"table: dropped",
    "what a partition or a child inherits has no statement of its own": (
        r"table: (no longer of a type|inherits no more)|partition: (detached|another bound)"
        r"|partition: (default with bounds|index attached)|column: inherited one made local"
    ),
    "NOT NULL is a part of its column": r"constraint: not null not (valid|inherited)",
    "it belongs to the server": (
        r"role: .*|database: setting of a group role|platform: .*under its Better Auth's name"
    ),
    "columns of other tables go with it": r"schema: dropped",
}


def reason(name: str) -> str | None:
    """Return why a change is refused; None if a revision is written for it."""
    return next((why for why, names in REFUSED.items() if re.fullmatch(names, name)), None)
