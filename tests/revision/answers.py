"""The decisions that a person would make, read from the questions."""

import re

from schema.revision.decisions import Answers, UndecidedError


def answers_to(question: UndecidedError) -> Answers:
    """Drop with a reason, convert with a cast, fill with a word."""
    text = str(question)
    drops = dict.fromkeys(re.findall(r"--drop (\S+?)=", text), "a test needs it no more")
    fills = dict.fromkeys(re.findall(r"--fill (\S+?)=", text), "'x'")
    rewrites = dict.fromkeys(re.findall(r"--rewrite (\S+?)=", text), "the table is small")
    conversions = {}
    for name in re.findall(r"--using (\S+?)=", text):
        found = re.search(
            rf"Column {re.escape(name)} has the type (.+?) in the schema and (.+?) in the", text
        )
        assert found is not None
        if found[2].endswith("[]"):  # the text of an array is another one than its element's
            drops[name] = "a downgrade makes another text"
        conversions[name] = _converted(name.rpartition(".")[2], found[1], found[2])
    return Answers(drops, conversions, fills, rewrites)


def _converted(column: str, was: str, becomes: str) -> str:
    if "time zone" in was + becomes:
        return f"{column} AT TIME ZONE 'UTC'"
    if becomes.endswith("[]"):
        return f"ARRAY[{column}]"
    return f"{column}::{becomes}"
