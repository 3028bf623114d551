"""Errors that end a deploy or one attempt."""

from alembic.util import CommandError
from tenacity import RetryCallState


class FailedError(CommandError):
    """Exit code 1, not 2: the deploy failed, or left another schema."""


class LostError(Exception):
    """The connection was lost. Committed revisions stay."""


def attempt_error(state: RetryCallState) -> BaseException:
    """Return the exception of a failed attempt.

    Raises:
        ValueError: the attempt did not fail.

    """
    error = None if state.outcome is None else state.outcome.exception()
    if error is None:
        raise ValueError("the attempt did not fail")
    return error
