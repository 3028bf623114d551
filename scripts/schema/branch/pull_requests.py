"""Which pull requests are closed, as GitHub says."""

import os
import re

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from schema.errors import CannotRunError

API = "https://api.github.com"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def is_closed(number: int) -> bool:
    """Whether the pull request of that number is closed, merged included.

    It is asked of GITHUB_REPOSITORY, with GITHUB_TOKEN if there is one.

    Raises:
        CannotRunError: GitHub cannot be asked, or knows no such pull request.

    """
    repository = os.environ.get("GITHUB_REPOSITORY", "").strip()
    if not _REPOSITORY.fullmatch(repository):
        raise CannotRunError(
            "GITHUB_REPOSITORY is not set; set it to the repository, as owner/name, so that its"
            " pull requests can be looked up."
        )
    base = os.environ.get("GITHUB_API_URL", "").strip() or API
    attempts = Retrying(
        retry=retry_if_exception_type(httpx.TransportError),
        wait=wait_random_exponential(multiplier=0.25, max=8),
        stop=stop_after_attempt(5),
        reraise=True,
    )
    try:
        response = attempts(_ask, f"{base}/repos/{repository}/pulls/{number}")
    except httpx.TransportError as error:
        raise CannotRunError(f"GitHub cannot be reached at {httpx.URL(base).host}.") from error
    if response.status_code != 200:
        raise CannotRunError(
            f"GitHub says {response.status_code} of pull request {number} in {repository}; is"
            " GITHUB_TOKEN allowed to read it?"
        )
    return bool(response.json()["state"] == "closed")


def _ask(url: str) -> httpx.Response:
    token = os.environ.get("GITHUB_TOKEN", "").strip()
    headers = {"Accept": "application/vnd.github+json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return httpx.get(url, headers=headers, timeout=30)
