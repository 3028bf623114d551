"""What the APIs of Neon and GitHub share: a secret in a header, and where it may be sent."""

import os
import re

import httpx

from schema.errors import CannotRunError

SECRET = re.compile(r"[\x21-\x7e]+")
"""The characters that a key or a token may have in a header."""


class RefusedError(CannotRunError):
    """The other side refused a request; the message is one sentence."""

    def __init__(self, message: str, status: int) -> None:
        """Keep the status of the answer."""
        super().__init__(message)
        self.status = status


def require_form(name: str, value: str, form: re.Pattern[str]) -> None:
    """Raise CannotRunError unless a variable has this form; httpx's error would repeat it."""
    if not form.fullmatch(value):
        raise CannotRunError(f"{name} contains characters that it cannot have; copy it anew.")


def read_address(name: str, default: str, secret: str) -> str:
    """Return the address in a variable, or the default, without a final slash.

    Raises:
        CannotRunError: the secret would travel there in the clear.

    """
    base = (os.environ.get(name, "").strip() or default).rstrip("/")
    try:
        address = httpx.URL(base)
    except httpx.InvalidURL as error:
        raise CannotRunError(f"{name} is no address.") from error
    local = address.scheme == "http" and address.host in {"127.0.0.1", "localhost", "::1"}
    if address.scheme != "https" and not local:
        raise CannotRunError(f"{name} must begin with https://: the {secret} is sent there.")
    return base
