"""Keep values of rows out of texts: on a database that was given, only what is known is shown."""

import re

_LITERAL = re.compile(r"'((?:[^']|'')*)'")
_NAME = re.compile(r'"([^"]*)"')


def mask(sql: str, known: str) -> str:
    """Return a statement without the literals that `known`, the revision's text, does not hold.

    A revision may have read them from the database.
    """
    return _LITERAL.sub(lambda found: found[0] if found[1] in known else "'…'", sql)


def mask_names(message: str, known: str) -> str:
    """Return a message of PostgreSQL without the names that `known` does not hold."""
    return _NAME.sub(lambda found: found[0] if found[1] in known else '"…"', message)
