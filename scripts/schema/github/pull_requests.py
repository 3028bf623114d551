"""Pull requests: whether one is closed, and which one a branch belongs to."""

from typing import Any

from schema.errors import CannotRunError
from schema.github.api import GitHub, GitHubError


def is_closed(github: GitHub, number: int) -> bool:
    """Whether the pull request of that number is closed, merged included.

    Raises:
        CannotRunError: GitHub cannot be asked, or knows no such pull request.

    """
    return bool(_read(github, number).get("state") == "closed")


def number_of(github: GitHub, source: str, head: str) -> int | None:
    """Return the number of the open pull request from `owner:branch` whose head is that commit.

    The commit alone does not tell: GitHub answers that a commit of a fork belongs to no pull
    request. What the run itself says of it is not asked: the run belongs to its author. None if
    there is none, because it was closed or pushed to.

    Raises:
        CannotRunError: GitHub cannot be asked, or there are several.

    """
    found = [
        one["number"]
        for one in github.get("pulls", state="open", head=source, per_page=100)
        if one["head"]["sha"] == head
    ]
    if len(found) > 1:
        raise CannotRunError(
            f"Several open pull requests have the head {head}; nothing is written."
        )
    return int(found[0]) if found else None


def is_at(github: GitHub, number: int, head: str) -> bool:
    """Whether the pull request is open, and that commit is its head.

    Raises:
        CannotRunError: GitHub cannot be asked, or knows no such pull request.

    """
    found = _read(github, number)
    return bool(found["state"] == "open" and found["head"]["sha"] == head)


def _read(github: GitHub, number: int) -> dict[str, Any]:
    try:
        found = github.get(f"pulls/{number}")
    except GitHubError as error:
        if error.status != 404:
            raise
        raise CannotRunError(
            f"{github.repository} has no pull request {number}, or GITHUB_TOKEN may not read it."
        ) from error
    if not isinstance(found, dict) or found.get("number", number) != number:
        raise CannotRunError(f"GitHub's answer about pull request {number} is about another.")
    return found
