"""GitHub's REST API, for one repository."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from schema.errors import CannotRunError
from schema.web import SECRET, RefusedError, read_address, require_form

API = "https://api.github.com"
_REPOSITORY = re.compile(r"(?!\.)[\w.-]+/(?!\.)[\w.-]+")
_PASSING = {500, 502, 503, 504}


class GitHubError(RefusedError):
    """GitHub refused a request."""


class _PassingError(Exception):
    """A read that may succeed later."""


@dataclass(frozen=True)
class GitHub:
    """A repository, and the client that talks to it."""

    repository: str
    client: httpx.Client

    def get(self, path: str, **parameters: str | int) -> Any:  # noqa: ANN401  # any JSON
        """Read something of the repository; repeated while GitHub cannot answer.

        Raises:
            CannotRunError: GitHub cannot be reached, or refuses.

        """
        attempts = Retrying(
            retry=retry_if_exception_type((httpx.TransportError, _PassingError)),
            wait=wait_random_exponential(multiplier=0.25, max=8),
            stop=stop_after_attempt(6),
            reraise=True,
        )
        try:
            return attempts(self._read, path, parameters)
        except (httpx.TransportError, _PassingError) as error:
            raise CannotRunError(
                f"GitHub cannot be reached at {self.client.base_url.host}; run this again."
            ) from error

    def change(self, method: str, path: str, body: dict[str, object]) -> Any:  # noqa: ANN401
        """Change something, once.

        Raises:
            CannotRunError: GitHub cannot be reached, or refuses.

        """
        try:
            response = self.client.request(method, self._path(path), json=body)
        except httpx.TransportError as error:
            raise CannotRunError(
                f"GitHub's answer was lost at {self.client.base_url.host}; run this again."
            ) from error
        return self._json(response, path)

    def upload(self, url: str, file: Path) -> None:
        """Attach a file, at the address that GitHub gave for it.

        Raises:
            CannotRunError: GitHub cannot be reached, or refuses.

        """
        try:
            response = self.client.post(
                url,
                params={"name": file.name},
                content=file.read_bytes(),
                headers={"Content-Type": "application/octet-stream"},
            )
        except httpx.TransportError as error:
            raise CannotRunError(f"{file.name} could not be attached; run this again.") from error
        self._json(response, file.name)

    def _path(self, path: str) -> str:
        return f"repos/{self.repository}/{path}"

    def _read(self, path: str, parameters: dict[str, str | int]) -> Any:  # noqa: ANN401
        response = self.client.get(self._path(path), params=parameters)
        if response.status_code in _PASSING:
            raise _PassingError
        return self._json(response, path)

    def _json(self, response: httpx.Response, path: str) -> Any:  # noqa: ANN401
        if not response.is_success:
            if response.headers.get("X-RateLimit-Remaining") == "0" or response.status_code == 429:
                raise GitHubError(
                    "GitHub's rate limit is reached; run this again in an hour.",
                    response.status_code,
                )
            raise GitHubError(
                f"GitHub says {response.status_code} of {path} in {self.repository}; may"
                " GITHUB_TOKEN do this?",
                response.status_code,
            )
        try:
            return response.json()
        except (ValueError, RecursionError) as error:
            raise CannotRunError(
                f"GitHub's answer about {path} is no JSON; is GITHUB_API_URL right?"
            ) from error


@contextmanager
def open_repository() -> Iterator[GitHub]:
    """Talk to GITHUB_REPOSITORY, with GITHUB_TOKEN if there is one, at GITHUB_API_URL.

    Raises:
        CannotRunError: the repository is not named.

    """
    repository = os.environ.get("GITHUB_REPOSITORY", "").strip()
    if not _REPOSITORY.fullmatch(repository):
        raise CannotRunError("GITHUB_REPOSITORY must name the repository, as owner/name.")
    token = os.environ.get("GITHUB_TOKEN", "").strip()
    headers = {"Accept": "application/vnd.github+json"}
    if token:
        require_form("GITHUB_TOKEN", token, SECRET)
        headers["Authorization"] = f"Bearer {token}"
    base = read_address("GITHUB_API_URL", API, "token")
    with httpx.Client(base_url=f"{base}/", headers=headers, timeout=30) as client:
        yield GitHub(repository, client)
