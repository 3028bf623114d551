"""How Ctrl-C and SIGTERM end a deploy, whatever becomes of the exception that they raise."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Whether a signal has asked the deploy to end.

    The signal raises KeyboardInterrupt, so that psycopg cancels the statement that runs. That alone
    is not enough: SQLAlchemy closes the connection then, and whatever block is left next may raise
    an ordinary error instead, or a revision may catch the exception. So the deploy asks here before
    it tries anything again, begins a revision or executes a statement.
    """

    def __init__(self) -> None:
        """Begin without a signal."""
        self.arrived = False

    def arrive(self, _number: int, _frame: FrameType | None) -> None:
        """Handle a signal.

        Raises:
            KeyboardInterrupt: always.

        """
        self.arrived = True
        raise KeyboardInterrupt

    def check(self, *_event: object) -> None:
        """Make sure that no signal has arrived; what SQLAlchemy's events pass is not used.

        Raises:
            KeyboardInterrupt: one has.

        """
        if self.arrived:
            raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Handle Ctrl-C and SIGTERM for the length of a block; only the main thread can.

    A signal that the process ignores, as a program in the background ignores Ctrl-C, stays ignored.
    """
    interruption = Interruption()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, interruption.arrive)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
