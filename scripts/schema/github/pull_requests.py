"""Pull requests: whether one is closed, and which one a commit is the head of."""

from schema.errors import CannotRunError
from schema.github.api import GitHub, GitHubError


def is_closed(github: GitHub, number: int) -> bool:
    """Whether the pull request of that number is closed, merged included.

    Raises:
        CannotRunError: GitHub cannot be asked, or knows no such pull request.

    """
    try:
        return bool(github.get(f"pulls/{number}")["state"] == "closed")
    except GitHubError as error:
        if error.status != 404:
            raise
        raise CannotRunError(
            f"{github.repository} has no pull request {number}, or GITHUB_TOKEN may not read it."
        ) from error


def number_of(github: GitHub, head: str) -> int:
    """Return the number of the only open pull request whose head is that commit.

    A forked repository's pull request is found too. What the run itself says of it is not asked:
    the run belongs to the author of the pull request.

    Raises:
        CannotRunError: there is none, or several.

    """
    found = [
        one["number"]
        for one in github.get(f"commits/{head}/pulls", per_page=100)
        if one["state"] == "open" and one["head"]["sha"] == head
    ]
    if len(found) != 1:
        what = "No open pull request has" if not found else "Several open pull requests have"
        raise CannotRunError(f"{what} the head {head}; nothing was written.")
    return int(found[0])
