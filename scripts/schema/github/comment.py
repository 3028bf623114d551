"""One comment on a pull request, written anew in place.

The page comes from a job that runs the pull request's code. It is data: nothing in it may call a
person, load a picture, or look like more than what that job said.
"""

import re
from pathlib import Path

from schema.errors import CannotRunError
from schema.github.api import GitHub

MARKER = "<!-- the review of the schema -->"
MOST_BYTES = 1_000_000
"""A page may not be larger: what is read must fit."""
MOST_CHARACTERS = 60_000
"""Of the page; GitHub allows 65,536 in a comment."""

_TAGS = "details(?: open)?|summary|br|sub|sup|kbd|b|i"
# A tag begins so; `a < b` and `a <= b`, in a CHECK, are left as they are.
_TAG = re.compile(rf"<(?=[A-Za-z/!?])(?!/?(?:{_TAGS})\s*/?>)", re.IGNORECASE)
_MENTION = re.compile(r"@(?=\w)")
_REFERENCE = re.compile(r"(?<![\w&])(#|GH-)(?=\d)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
_JOINER = "\u2060"


def read_page(path: Path) -> str:
    """Read the page of a job that is not trusted, and make it harmless.

    Raises:
        CannotRunError: it is no regular file of text, or too large.

    """
    if path.is_symlink() or not path.is_file():
        raise CannotRunError(f"{path.name} is no regular file; nothing was written.")
    if path.stat().st_size > MOST_BYTES:
        raise CannotRunError(
            f"{path.name} is larger than {MOST_BYTES:,} bytes; nothing was written."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CannotRunError(f"{path.name} is no UTF-8 text; nothing was written.") from None
    return harmless(text)


def harmless(text: str) -> str:
    """Return Markdown that calls no person, loads nothing and hides nothing, cut to a length."""
    text = _CONTROL.sub("\ufffd", text.replace("\r\n", "\n"))
    text = _TAG.sub("&lt;", text)
    text = _MENTION.sub(f"@{_JOINER}", text)
    text = _REFERENCE.sub(rf"\1{_JOINER}", text)
    text = text.replace("![", f"!{_JOINER}[")
    if len(text) <= MOST_CHARACTERS:
        return text
    shown = text[:MOST_CHARACTERS].rpartition("\n")[0]
    fence = "\n```" if shown.count("```") % 2 else ""
    return f"{shown}{fence}\n\n**The page is longer: the run has the rest of it.**"


def write(github: GitHub, number: int, page: str, head: str) -> str:
    """Write the comment, over the one of an earlier run if there is one; return its address.

    Raises:
        CannotRunError: GitHub cannot be reached, or refuses.

    """
    body = f"{MARKER}\n{page}\n\n<sub>By the pull request's own code, at {head[:12]}.</sub>"
    page_number = 1
    while found := github.get(f"issues/{number}/comments", per_page=100, page=page_number):
        for one in found:
            if one["body"].startswith(MARKER) and one["user"]["type"] == "Bot":
                path = f"issues/comments/{one['id']}"
                return str(github.change("PATCH", path, {"body": body})["html_url"])
        page_number += 1
    made = github.change("POST", f"issues/{number}/comments", {"body": body})
    return str(made["html_url"])
