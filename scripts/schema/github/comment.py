"""One comment on a pull request, written anew in place.

The page comes from a job that runs the pull request's code. It is data: nothing in it may call a
person, load a picture, or look like more than what that job said.
"""

import re
import unicodedata
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
_REFERENCE = re.compile(r"(#|GH-)(?=\d)", re.IGNORECASE)
# An entity would bring back what is disarmed as text; a definition shows nothing where it stands.
_ENTITY = re.compile(r"&(?=#?\w+;)")
_DEFINITION = re.compile(r"^([ >]*\[[^\]\n]*\])(?=:)", re.MULTILINE)
_LINK = re.compile(r"(:)(?=//)|(\bwww)(?=\.)", re.IGNORECASE)
# What GitHub draws from a fence may load something.
_DRAWN = re.compile(r"((?<!`)`{3,}|(?<!~)~{3,})[ ]*(?:geojson|topojson|stl|math)", re.IGNORECASE)
_HIDDEN = {"Cc", "Cf", "Cn", "Co", "Cs"}
"""Unicode's categories of what is not seen, or reorders what is."""
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
    """Return Markdown, cut to a length, that calls no person, links, loads and hides nothing.

    Code is changed by a character that is not seen where it looks like one of these.
    """
    text = "".join(
        one if one in "\n\t" or unicodedata.category(one) not in _HIDDEN else "\ufffd"
        for one in text.replace("\r\n", "\n")
    )
    text = _ENTITY.sub("&amp;", text)
    text = _TAG.sub("&lt;", text)
    text = _MENTION.sub(f"@{_JOINER}", text)
    text = _REFERENCE.sub(rf"\1{_JOINER}", text)
    text = _DEFINITION.sub(rf"\1{_JOINER}", text)
    text = _LINK.sub(rf"\1\2{_JOINER}", text)
    text = _DRAWN.sub(r"\1text", text)
    text = text.replace("![", f"!{_JOINER}[")
    if len(text) <= MOST_CHARACTERS:
        return text
    shown = text[:MOST_CHARACTERS].rpartition("\n")[0]
    # Before the page: after it, an open fence or fold would swallow the note.
    return f"**The page is longer: the run has the rest of it.**\n\n{shown}"


def write(github: GitHub, number: int, page: str, head: str) -> str:
    """Write the comment, over the one of an earlier run if there is one; return its address.

    Raises:
        CannotRunError: GitHub cannot be reached, or refuses.

    """
    # Above the page, which could hide what follows it.
    note = f"<sub>By the pull request's own code, at {head[:12]}:</sub>"
    body = f"{MARKER}\n{note}\n\n{page}"
    page_number = 1
    while found := github.get(f"issues/{number}/comments", per_page=100, page=page_number):
        for one in found:
            if one["body"].startswith(MARKER) and one["user"]["type"] == "Bot":
                path = f"issues/comments/{one['id']}"
                return str(github.change("PATCH", path, {"body": body})["html_url"])
        page_number += 1
    made = github.change("POST", f"issues/{number}/comments", {"body": body})
    return str(made["html_url"])
