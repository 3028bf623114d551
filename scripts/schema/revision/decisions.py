"""Decisions that only a person can make: what may be lost, and what values old rows get.

A difference of two schemas does not say whether a column that is gone was renamed or dropped, nor
how values become values of another type. Nothing is written before such questions have answers.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pglast import parse_sql
from pglast.parser import ParseError
from sqlalchemy import MetaData

from migrations.snapshot import Snapshot
from schema.ddl.definition import by_part, column
from schema.errors import CannotRunError
from schema.revision.code.literals import dotted, plain

type Facts = dict[tuple[str, str], str]
"""The definition of each part of each object."""
type Rewrites = Callable[[str, str, str], bool]
"""Whether a change of a column, by its table, name and definition, writes every row anew."""

_VALUE = re.compile(r"'(?:[^']|'')*'")


@dataclass(frozen=True)
class Answers:
    """What a person has decided, by `table` or `table.column`."""

    losses: Mapping[str, str] = field(default_factory=dict)
    """Why a table or a column may be dropped with what is in it."""
    conversions: Mapping[str, str] = field(default_factory=dict)
    """The expression of a column's new value, when its type changes in place."""
    fills: Mapping[str, str] = field(default_factory=dict)
    """The expression of the value that rows get that have none."""
    rewrites: Mapping[str, str] = field(default_factory=dict)
    """Why every row may be written anew at once, while nobody can read the table."""

    renames: frozenset[str] = frozenset()
    """The columns that the models say replace others: a trigger keeps the two equal."""

    @property
    def names(self) -> set[str]:
        """The tables and columns that are decided about."""
        return {*self.losses, *self.conversions, *self.fills, *self.rewrites}


def with_renames(
    answers: Answers, metadata: Sequence[MetaData], before: Snapshot, after: Snapshot
) -> Answers:
    """Fill new columns from the old ones that the models say they replace (`renamed_from`).

    Raises:
        CannotRunError: there is no such old column.

    """
    there, declared = _columns(before), _columns(after)
    fills = {}
    for table in (table for one in metadata for table in one.sorted_tables):
        for new in table.columns:
            old, name = new.info.get("renamed_from"), f"{table.name}.{new.name}"
            if old is None or name in there:
                continue
            if f"{table.name}.{old}" not in there:
                raise CannotRunError(
                    f"Nothing is written: {name} says renamed_from {old!r}, and {table.name} has no"
                    " column of that name; fix it in the model."
                )
            if not table.columns[old].info.get("retiring"):
                raise CannotRunError(
                    f"Nothing is written: {name} says renamed_from {old!r}, and the model has"
                    f" {table.name}.{old} still; take one of the two out of the model."
                )
            quoted, was = there[f"{table.name}.{old}"]
            kind = declared.get(name, (name, was))[1]
            fills[name] = quoted if kind == was else f"{quoted}::{kind}"
    return replace(answers, fills={**fills, **answers.fills}, renames=frozenset(fills))


def _columns(snapshot: Snapshot) -> dict[str, tuple[str, str]]:
    """Return the quoted name and the type of each column of a table, by `table.column`."""
    return {
        dotted(fact.object, name): (
            name,
            str(column(fact.definition).get("type")),
        )
        for fact in snapshot
        if fact.object.startswith("table ")
        and fact.part.startswith("column ")
        and (name := fact.part.removeprefix("column "))
    }


type Taken = Literal["losses", "conversions", "fills", "rewrites"]
"""A field of Answers."""


@dataclass(frozen=True)
class Question:
    """A decision that a change needs."""

    about: str
    """The table or the table and column, such as `todo.description`."""
    difference: str
    ways: tuple[str, ...]
    """What can be done, each a clause."""
    takes: Taken | None = None
    """Which answer decides it; None if only another model does."""


class UndecidedError(CannotRunError):
    """The change needs decisions; the message asks for them."""

    def __init__(self, message: str, questions: Sequence[Question] = ()) -> None:
        """Ask for all of them at once."""
        super().__init__(message)
        self.questions = questions


def require_answers(
    before: Snapshot, after: Snapshot, answers: Answers, rewrites: Rewrites
) -> None:
    """Refuse a change with open questions.

    Raises:
        UndecidedError: a question has no answer, or an answer no question.

    """
    old, new = by_part(before), by_part(after)
    _refuse_roles(old, new)
    for name, expression in (*answers.fills.items(), *answers.conversions.items()):
        _require_expression(name, expression)
    questions = list(_questions(old, new, rewrites))
    left = [one for one in questions if one.about not in answers.names]
    if left:
        lines = [f"Nothing is written: {_number(len(left))} to be decided first."]
        for one in left:
            lines += [f"  {one.difference}.", *(f"    - {way}" for way in one.ways)]
        raise UndecidedError("\n".join(lines), left)
    asked = {one.about for one in questions} | _changed_columns(old, new)
    if unasked := sorted(answers.names - asked):
        raise UndecidedError(
            f"Nothing is written: {', '.join(unasked)} is no table or column that this change"
            " drops, converts, fills or rewrites; leave the option out."
        )


def _require_expression(name: str, expression: str) -> None:
    """Refuse what is no SQL expression, but a statement or half of one."""
    try:
        (parsed,) = parse_sql(f"SELECT ({expression}\n)")
        is_one = len(parsed.stmt.targetList) == 1 and parsed.stmt.fromClause is None
    except (ParseError, ValueError):
        is_one = False
    if not is_one:
        raise UndecidedError(f"Nothing is written: what {name} gets is no SQL expression.")


def _refuse_roles(old: Facts, new: Facts) -> None:
    """Refuse to write what belongs to the server: other databases use the same roles."""
    changed = sorted(
        f"{heading}, {part}"
        for heading, part in old.keys() | new.keys()
        if heading.startswith("role ") and old.get((heading, part)) != new.get((heading, part))
    )
    if changed:
        raise CannotRunError(
            f"Nothing is written: {'; '.join(changed)} differs, and roles belong to the server."
            " Write the revision by hand: make a role only if it is missing, and raise if it has"
            " attributes or memberships that it must not have (migrations/README.md)."
        )


def _number(questions: int) -> str:
    return "a difference has" if questions == 1 else f"{questions} differences have"


def _questions(old: Facts, new: Facts, rewrites: Rewrites) -> Iterator[Question]:
    headings = {one for one, _ in new}
    for (heading, part), was in sorted(old.items()):
        now = new.get((heading, part))
        if heading.startswith("table "):
            table = plain(heading)
            if part == "owner" and heading not in headings:
                yield _dropped(table, f"Table {table} is in the schema and not in the models")
            elif part.startswith("column ") and heading in headings and was != now:
                yield from _column((heading, part), was, now, rewrites)
        elif part == "definition" and was.startswith("enum ") and now and now.startswith("enum "):
            yield from _enum(heading, _VALUE.findall(was), _VALUE.findall(now))
    yield from _added(old, new, rewrites)
    yield from _locked(old, new)


def _locked(old: Facts, new: Facts) -> Iterator[Question]:
    """Ask about what has no way without a long lock on a table in use."""
    headings = {one for one, _ in old} & {one for one, part in new if part == "owner"}
    for heading, part in sorted(old.keys() | new.keys()):
        was, now = old.get((heading, part)), new.get((heading, part))
        if was == now or heading not in headings or not heading.startswith("table "):
            continue
        if part == "persistence":
            yield _rewritten(plain(heading), f"{heading.capitalize()} is {now or 'logged'} now")
        elif part.startswith("constraint ") and now and now.startswith("EXCLUDE "):
            name = part.removeprefix("constraint ")
            yield _rewritten(
                plain(heading),
                f"{name} compares every row of {plain(heading)} with the others",
            )


def _column(
    key: tuple[str, str], was: str, now: str | None, rewrites: Rewrites
) -> Iterator[Question]:
    heading, part = key
    name = dotted(heading, part.removeprefix("column "))
    if now is None:
        if not column(was).get("generated"):
            yield _dropped(name, f"Column {name} is in the schema and not in the models")
        return
    before, after = (column(one) for one in (was, now))
    if not before or not after or after["inherited"]:
        return
    if after["generated"] and not before["generated"]:
        yield _dropped(name, f"Column {name} holds values, and the models compute them")
    elif before["generated"] != after["generated"] and after["kept"] == "stored":
        yield _rewritten(name, f"Column {name} is computed otherwise")
    elif before["type"] == after["type"] and before["collation"] != after["collation"]:
        yield _rewritten(
            name, f"Column {name} has another collation, and its indexes another order"
        )
    elif before["type"] != after["type"] and (
        rewrites(heading, part.removeprefix("column "), now) or _zoned(before, after)
    ):
        yield Question(
            name,
            f"Column {name} has the type {before['type']} in the schema and {after['type']} in the"
            " models; its rows are written anew, while the table is locked",
            (
                f"in place, for a small table: --using {name}='an expression of the old value'; and"
                f" --drop {name}=REASON, if no downgrade can compute the old values",
                "in steps, for a table in use: give the new column another name, and say"
                f' info={{"renamed_from": "{name.rpartition(".")[2]}"}} in the model',
            ),
            "conversions",
        )


def _rewritten(name: str, difference: str) -> Question:
    return Question(
        name,
        f"{difference}; every row is read or written anew, while the table is locked",
        (
            f"at once, for a small table: --rewrite {name}='why that is right'",
            "in steps, for a table in use: written by hand",
        ),
        "rewrites",
    )


def _zoned(before: Mapping[str, str | None], after: Mapping[str, str | None]) -> bool:
    kinds = [str(one["type"]) for one in (before, after)]
    return (" with time zone" in kinds[0]) != (" with time zone" in kinds[1])


def _dropped(name: str, difference: str) -> Question:
    what = "column" if "." in name else "table"
    old = name.rpartition(".")[2]
    ways = [f"drop it with what is in it: --drop {name}='why it is not needed'"]
    if what == "column":
        ways.append(f'it has a new name: info={{"renamed_from": "{old}"}} at the new column')
        ways.append("a running release uses it: list it in the model's `retiring`")
    return Question(name, difference, tuple(ways), "losses")


def _enum(heading: str, was: list[str], now: list[str]) -> Iterator[Question]:
    if [one for one in now if one in was] != was:
        yield Question(
            heading,
            f"{heading[:1].upper()}{heading[1:]} has the values {', '.join(was)} in the schema and"
            f" {', '.join(now)} in the models; PostgreSQL can only add values",
            (
                "keep the old values in the models, and refuse them with a CHECK",
                "make another type, and a new column of it",
            ),
        )


def _added(old: Facts, new: Facts, rewrites: Rewrites) -> Iterator[Question]:
    """Ask about new columns of tables in use: for values of old rows, and for a rewrite."""
    headings = {one for one, _ in old}
    for (heading, part), now in sorted(new.items()):
        if not heading.startswith("table ") or heading not in headings:
            continue
        if not part.startswith("column ") or (heading, part) in old:
            continue
        column_name = part.removeprefix("column ")
        name = dotted(heading, column_name)
        found = column(now)
        if not found or found["default"] or found["inherited"]:
            continue
        if found["required"] and not (found["generated"] or found["identity"]):
            yield Question(
                name,
                f"Column {name} is NOT NULL, and rows that exist have no value for it",
                (
                    "give it a server_default: releases that do not know it keep working",
                    f"say what they get: --fill {name}='an expression of the row'; the running"
                    " release cannot INSERT from then on, because it does not know the column",
                    "let it be NULL, and require it in a later release",
                ),
                "fills",
            )
        elif rewrites(heading, column_name, now):
            yield _rewritten(name, f"Column {name} has a value for each row that exists")


def _changed_columns(old: Facts, new: Facts) -> set[str]:
    """Return the columns that change: their rows may be filled, and their values lost."""
    return {
        dotted(heading, part.removeprefix("column "))
        for (heading, part), now in new.items()
        if heading.startswith("table ")
        and part.startswith("column ")
        and old.get((heading, part)) != now
    }
