"""The errors that end a deploy, or an attempt of it."""

from alembic.util import CommandError
from tenacity import RetryCallState


class FailedError(CommandError):
    """The deploy ended before it was done, or with a schema that is not the committed one."""


class LostError(Exception):
    """The connection was lost; what was committed stays."""


def attempt_error(state: RetryCallState) -> BaseException:
    """What an attempt ended in that is to be made again.

    Raises:
        ValueError: it did not fail.

    """
    error = None if state.outcome is None else state.outcome.exception()
    if error is None:
        raise ValueError("the attempt did not fail")
    return error
