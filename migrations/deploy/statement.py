"""Read the beginning of a statement: its command and the names in it, never a value."""

import re
from collections.abc import Iterator
from itertools import islice

_NAME = r"""(?: [^\W\d][\w$]*+ (?!') | "(?:[^"]|"")*" )"""
_TOKEN = re.compile(
    rf"(?P<comment> /\* ) | \s+ | --[^\n]* | (?P<token> {_NAME} (?:\s*\.\s*{_NAME})* | \w*' | . )",
    re.VERBOSE | re.DOTALL,
)
_END_OF_COMMENT = re.compile(r"/\*|\*/")

# What follows these may be a value, even without quotes.
_BEFORE_VALUES = {"AS", "DEFAULT", "IS", "PASSWORD", "SELECT", "TO", "VALUES", "WHERE", "ZONE"}

_MAX_WORDS = 9
"""As many as CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS name ON has."""


def tokens(sql: str) -> Iterator[str]:
    """Yield the names, keywords and other characters of a statement, without its comments.

    A name keeps its quotes, and its schema. A literal comes in pieces.
    """
    place = 0
    while place < len(sql) and (match := _TOKEN.match(sql, place)):
        place = match.end()
        if match["comment"]:
            place = _end_of_comment(sql, place)
        elif match["token"]:
            yield match["token"]


def describe_sql(sql: str) -> str:
    """Name a statement in a log by its first words: no literal, no comment, no quoted name."""
    words: list[str] = []
    for token in tokens(sql.rstrip("; \n")):
        is_word = (token[0].isalpha() or token[0] == "_") and not set(token) & {"'", '"'}
        before = words[-1].upper() if words else ""
        if not is_word or before in _BEFORE_VALUES or len(words) == _MAX_WORDS:
            return " ".join([*words, "…"])
        words.append("".join(token.split()))
    return " ".join(words)


def is_concurrent(sql: str) -> bool:
    """Whether the statement waits for other transactions in a mode behind which none queues.

    These are the CONCURRENTLY forms of CREATE INDEX, DROP INDEX, REINDEX and DETACH PARTITION.
    """
    words = [token.upper() for token in islice(tokens(sql), 16)]
    if "CONCURRENTLY" not in words:
        return False
    command, second = words[0], words[1:2]
    if command == "ALTER":
        return "DETACH" in words
    if command in {"CREATE", "DROP"}:
        return (second == ["INDEX"] or words[1:3] == ["UNIQUE", "INDEX"]) and (
            words[words.index("INDEX") + 1] == "CONCURRENTLY"
        )
    return command == "REINDEX"


def index_to_build(sql: str) -> tuple[str, str] | None:
    """Return the names of the index and its table, of CREATE INDEX CONCURRENTLY with a name."""
    words = list(islice(tokens(sql), 16))
    if not is_concurrent(sql) or words[0].upper() != "CREATE":
        return None
    names = [word for word in words[2:] if word.upper() not in {"INDEX", "CONCURRENTLY", "ONLY"}]
    if [word.upper() for word in names[:3]] == ["IF", "NOT", "EXISTS"]:
        names = names[3:]
    return (names[0], names[2]) if names[1:2] and names[1].upper() == "ON" else None


def partition_to_detach(sql: str) -> str | None:
    """Return the name of the partition, of ALTER TABLE … DETACH PARTITION … CONCURRENTLY."""
    words = list(islice(tokens(sql), 16))
    upper = [word.upper() for word in words]
    if not is_concurrent(sql) or upper[0] != "ALTER":
        return None
    return next(iter(words[upper.index("DETACH") + 2 :]), None)


def _end_of_comment(sql: str, place: int) -> int:
    """Return the end of the comment that has begun before `place`; comments nest."""
    depth = 1
    for match in _END_OF_COMMENT.finditer(sql, place):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    return len(sql)
