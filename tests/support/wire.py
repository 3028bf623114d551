"""What a client and PostgreSQL say to each other, as libpq's trace has it."""

from itertools import pairwise
from pathlib import Path


def trips(trace: Path) -> int:
    """How often the client waited for the server: libpq's trace names who sent each message."""
    # A statement of several lines goes on below its message.
    senders = [line[0] for line in trace.read_text().splitlines() if line[1:2] == "\t"]
    return sum(pair == ("F", "B") for pair in pairwise(senders))
