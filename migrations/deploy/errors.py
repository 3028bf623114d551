"""Errors that end a deploy or one attempt."""

from alembic.util import CommandError
from tenacity import RetryCallState


class FailedError(CommandError):
    """Exit code 1: a revision failed and was rolled back; committed revisions stay."""


class GaveUpError(FailedError):
    """Exit code 1: another session has held a lock for too long."""


class DifferentError(FailedError):
    """Exit code 3: the database is at its revision, but its schema is not the committed one."""


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
