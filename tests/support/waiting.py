"""Waiting for a condition instead of a time."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def when(condition: Callable[[], bool], do: Callable[[], object]) -> Iterator[None]:
    """Run a function in a thread when a condition is true; it must come true during the block."""
    met, ended = threading.Event(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            if condition():
                met.set()
                do()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert met.is_set(), "the condition was never met"
