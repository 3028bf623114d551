"""End a deploy at Ctrl-C or SIGTERM, even if a revision catches the exception."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Remembers whether a signal has arrived.

    The signal raises KeyboardInterrupt, so that psycopg cancels the running statement. That alone
    is not enough: a revision may catch the exception, or another error may replace it. So the
    deploy calls `check` before each retry, revision and statement.
    """

    def __init__(self) -> None:
        """Begin without a signal."""
        self.arrived = False
        self.ended = False
        """Whether the outcome is known: a later signal does not change it."""

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """Handle a signal.

        Raises:
            KeyboardInterrupt: always.

        """
        if self.ended:
            return
        self.arrived = True
        raise KeyboardInterrupt

    def check(self, *_event: object) -> None:
        """Make sure that no signal has arrived. The arguments of SQLAlchemy's events are unused.

        Raises:
            KeyboardInterrupt: a signal has arrived.

        """
        if self.arrived:
            raise KeyboardInterrupt


@contextmanager
def interruptible(*, keep: bool = False) -> Iterator[Interruption]:
    """Handle Ctrl-C and SIGTERM during the block, if this is the main thread.

    With `keep`, the handlers stay after it: a late signal must not take the report away.

    An ignored signal stays ignored: a shell's background programs ignore Ctrl-C.
    """
    interruption = Interruption()
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                previous[number] = signal.signal(number, interruption.handle)
    try:
        yield interruption
    finally:
        for number, handler in previous.items():
            if not keep:
                signal.signal(number, handler)
