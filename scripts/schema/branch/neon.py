"""Neon's API, version 2: one request at a time, repeated where that is safe.

Neon has no idempotency keys. Its document says when a request may be repeated: always after 423
(another operation runs) and 503, and a read always. 429 (too many requests) was refused before
anything was done. After any other failure of a change it is not known whether it happened:
`UnknownOutcomeError` tells the caller to look.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_any,
    stop_before_delay,
    wait_random_exponential,
)
from tenacity.stop import stop_base

from schema.errors import CannotRunError
from schema.web import SECRET, RefusedError, read_address, require_form

API = "https://console.neon.tech/api/v2"

UNREACHABLE = 20
"""Seconds after which an address that never answered counts as wrong."""

MOST_ASKED = 60
"""Seconds that one Retry-After may ask for."""

PATIENCE = 300
"""Seconds for which a request is repeated or an operation waited for, as in Neon's own client."""

_PROJECT = re.compile(r"[a-z0-9-]{1,60}")
_GIVEN_AWAY = re.compile(r"((?:password|passwd|token|secret|key)\s*[=:]\s*)\S+", re.IGNORECASE)
_ALWAYS_SAFE = {423, 429, 503}
_UNCLEAR = {500, 502, 504, 408, 520, 521, 522, 523, 524}

_PENDING = {"scheduling", "running", "cancelling"}
_DONE = {"finished", "skipped"}

type Answer = dict[str, Any]
"""A JSON object; {} for an answer without one."""

type Show = Callable[[str], None]
"""Shows the current step."""


class NeonError(RefusedError):
    """Neon refused a request; the message is one sentence."""


class UnknownOutcomeError(CannotRunError):
    """A change was sent, and no answer says whether it happened."""


class _TryAgainError(Exception):
    """A request that may be repeated."""

    def __init__(self, why: str, after: float = 0) -> None:
        super().__init__(why)
        self.after = after
        """Seconds that Neon asks to wait."""


class _UnreachableError(_TryAgainError):
    """No server answered at the address."""


@dataclass(frozen=True)
class Neon:
    """A project, and the client that talks to it."""

    project: str
    client: httpx.Client
    patience: float = PATIENCE

    def get(self, path: str, **parameters: str | int | bool) -> Answer:
        """Read something of the project; repeated until it is answered.

        Raises:
            NeonError: Neon refuses it.
            CannotRunError: Neon cannot be reached.

        """
        return self._send("GET", path, parameters=parameters, repeatable=True)

    def change(
        self, method: str, path: str, body: Answer | None = None, *, repeatable: bool = False
    ) -> Answer:
        """Change something; `repeatable` says that doing it twice is doing it once.

        Raises:
            NeonError: Neon refuses it.
            UnknownOutcomeError: it was sent, and it is not known whether it happened.
            CannotRunError: Neon cannot be reached.

        """
        return self._send(method, path, body=body, repeatable=repeatable)

    def pages(self, path: str, field: str, **parameters: str | int | bool) -> Iterator[Answer]:
        """Yield every entry of a list, page by page."""
        cursor, seen = "", set[str]()
        while True:
            more = {"cursor": cursor} if cursor else {}
            answer = self.get(path, limit=100, **parameters, **more)
            with understood():
                entries = [dict(one) for one in answer[field]]
                following = str((answer.get("pagination") or {}).get("next") or "")
            yield from entries
            seen.add(cursor)
            if not entries or not following or following in seen:
                return
            cursor = following

    def wait(self, answer: Answer, show: Show) -> None:
        """Wait until the operations that an answer names are finished.

        Raises:
            CannotRunError: one of them failed, or takes too long.

        """
        with understood():
            for operation in answer.get("operations") or ():
                self._wait(operation, show)

    def _wait(self, operation: Answer, show: Show) -> None:
        deadline = time.monotonic() + self.patience
        pause = 0.1
        while operation["status"] in _PENDING:
            show(f"{operation['action']}: {operation['status']}")
            if time.monotonic() > deadline:
                raise CannotRunError(
                    f"Neon's operation {operation['action']} ({operation['id']}) takes longer than"
                    f" {self.patience:.0f} seconds; look at it in the console, then run this again."
                )
            time.sleep(pause)
            pause = min(1, pause * 2)
            operation = self.get(f"operations/{operation['id']}")["operation"]
        if operation["status"] not in _DONE:
            raise CannotRunError(
                f"Neon's operation {operation['action']} ({operation['id']}) ended as"
                f" {operation['status']}; run this again, or look at it in the console."
            )

    def _send(
        self,
        method: str,
        path: str,
        *,
        parameters: dict[str, str | int | bool] | None = None,
        body: Answer | None = None,
        repeatable: bool,
    ) -> Answer:
        attempts = Retrying(
            retry=retry_if_exception_type(_TryAgainError),
            wait=_pause,
            stop=stop_any(stop_before_delay(self.patience), _NeverReached()),
            reraise=True,
        )
        try:
            return attempts(self._once, method, path, parameters, body, repeatable=repeatable)
        except _TryAgainError as error:
            if isinstance(error, _UnreachableError):
                raise CannotRunError(
                    f"Neon cannot be reached at {self.client.base_url.host}; check the network and"
                    " NEON_API_URL."
                ) from None
            raise CannotRunError(
                f"Neon did not do it for {self.patience:.0f} seconds ({error}); run this again"
                " later."
            ) from None

    def _once(
        self,
        method: str,
        path: str,
        parameters: dict[str, str | int | bool] | None,
        body: Answer | None,
        *,
        repeatable: bool,
    ) -> Answer:
        url = f"projects/{self.project}/{path}".rstrip("/")
        try:
            response = self.client.request(method, url, params=parameters, json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:  # nothing was sent
            raise _UnreachableError("no connection") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            if repeatable:
                raise _TryAgainError("the connection broke") from error
            raise UnknownOutcomeError("Neon's answer was lost.") from error
        status = response.status_code
        if status in _ALWAYS_SAFE or (repeatable and status in _UNCLEAR):
            raise _TryAgainError(f"status {status}", _retry_after(response))
        if status in _UNCLEAR:
            raise UnknownOutcomeError(f"Neon answered with status {status}.")
        if response.is_success:
            try:
                return _json(response) if response.content else {}
            except CannotRunError as error:
                if method == "GET" or repeatable:
                    raise
                raise UnknownOutcomeError(str(error)) from error
        raise _refusal(response, self.project)


@contextmanager
def understood() -> Iterator[None]:
    """Read an answer of Neon's in the block.

    Raises:
        CannotRunError: it has not the form that Neon's document gives it.

    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CannotRunError(
            "Neon's answer has another form than its document says; is NEON_API_URL right?"
        ) from error


@contextmanager
def open_project() -> Iterator[Neon]:
    """Talk to the project of NEON_PROJECT_ID with the key in NEON_API_KEY.

    NEON_API_URL is another place for the API than Neon's own.

    Raises:
        CannotRunError: one of them is missing or cannot be right.

    """
    project, key = (
        os.environ.get(name, "").strip() for name in ("NEON_PROJECT_ID", "NEON_API_KEY")
    )
    for name, value, form in (
        ("NEON_PROJECT_ID", project, _PROJECT),
        ("NEON_API_KEY", key, SECRET),
    ):
        if not value:
            raise CannotRunError(
                f"{name} is not set; set it to {'the id of' if form is _PROJECT else 'a key for'}"
                " the Neon project (console, Settings)."
            )
        require_form(name, value, form)
    base = read_address("NEON_API_URL", API, "key")
    headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
    timeout = httpx.Timeout(60, connect=10)
    with httpx.Client(base_url=f"{base}/", headers=headers, timeout=timeout) as client:
        yield Neon(project, client)


def _pause(state: RetryCallState) -> float:
    """Wait as long as Neon asks, or longer with each attempt."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.after if isinstance(error, _TryAgainError) else 0
    return max(asked, wait_random_exponential(multiplier=0.25, max=8)(state))


class _NeverReached(stop_base):
    """Stops when connections fail for long: the address may be wrong."""

    def __call__(self, retry_state: RetryCallState) -> bool:
        """Look at the last attempt."""
        error = retry_state.outcome.exception() if retry_state.outcome else None
        waited = retry_state.seconds_since_start or 0
        return isinstance(error, _UnreachableError) and waited > UNREACHABLE


def _retry_after(response: httpx.Response) -> float:
    """Read Retry-After: seconds, or a date."""
    text = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return min(MOST_ASKED, float(text))
    try:
        then = parsedate_to_datetime(text)
        seconds = (then.astimezone(UTC) - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return 0
    return min(MOST_ASKED, max(0, seconds))


def _json(response: httpx.Response) -> Answer:
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise CannotRunError(
            f"{response.url.host} did not answer as Neon's API does; is NEON_API_URL right?"
        )
    return answer


def _refusal(response: httpx.Response, project: str) -> NeonError:
    """Say in one sentence why Neon refused, and what to do."""
    try:
        answer = _json(response)
    except CannotRunError:
        answer = {}
    status, code = response.status_code, str(answer.get("code", ""))
    key = response.request.headers.get("Authorization", "").removeprefix("Bearer ")
    said = _one_line(str(answer.get("message", "")).replace(key or "\0", "…"))
    advice = {
        401: "Neon does not accept NEON_API_KEY; make a new key in the console, and set it",
        403: f"NEON_API_KEY may not do this in project {project}; use a key with that right",
        412: "Neon's plan for this project forbids this",
    }.get(status)
    if code == "BRANCHES_LIMIT_EXCEEDED":
        advice = "The project has as many branches as its plan allows; delete one, or let schema"
        advice += " branch prune do it"
    listing = response.request.method == "GET" and response.url.path.endswith("/branches")
    if status == 404 and listing:
        advice = f"Neon knows no project {project} that NEON_API_KEY may see; check NEON_PROJECT_ID"
    why = f" ({said})" if said else f" (status {status})"
    message = f"{advice}{why}." if advice else f"Neon refuses it with status {status}{why}."
    return NeonError(message, status)


def _one_line(text: str) -> str:
    """Return Neon's message without what may be a connection string."""
    text = _GIVEN_AWAY.sub(r"\1…", text)
    words = ["…" if "://" in word or "@" in word else word for word in text.split()]
    return " ".join(words).rstrip(".")[:300]
