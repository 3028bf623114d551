"""Read libpq's trace of the protocol messages."""

from itertools import pairwise
from pathlib import Path


def trips(trace: Path) -> int:
    """Count the round trips in a trace, which names the sender of each message."""
    # A statement with several lines continues below its message.
    senders = [line[0] for line in trace.read_text().splitlines() if line[1:2] == "\t"]
    return sum(pair == ("F", "B") for pair in pairwise(senders))
