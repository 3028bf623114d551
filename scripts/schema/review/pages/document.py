"""A review as JSON's types, for `--format json`."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass

from schema.review.pages import wording
from schema.review.result import Review


def document(review: Review) -> dict[str, object]:
    """Return every field of a review, and what follows from it: `ok`, and `deployment` in words.

    The command adds the document's version. Tuples become lists, and data classes objects.
    """
    found = {one.name: _plain(getattr(review, one.name)) for one in fields(review)}
    return found | {
        "ok": review.ok,
        "deployment": wording.deployment(review.breaks) if review.compared_statements else "",
    }


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
