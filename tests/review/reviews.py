"""Made-up reviews: one with each part of a page, a huge one, and changed copies of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from schema.review.result import (
    AccessChange,
    Break,
    Column,
    Diagram,
    Failure,
    Finding,
    Lint,
    Lock,
    ObjectChange,
    Reference,
    Reversal,
    Review,
    Revision,
    Size,
    Statement,
    Step,
    Table,
    Transaction,
)

LOCK = Lock("todo", "ACCESS EXCLUSIVE", "reads and writes", 0.0123, 200_000)
ALTER = Statement(
    "ALTER TABLE todo\n    ALTER COLUMN priority TYPE bigint,\n    ADD CONSTRAINT"
    " todo_priority_check CHECK (priority BETWEEN 0 AND 9)",
    31,
    0.812,
    locks=(
        LOCK,
        Lock("todo_due_idx", "SHARE", "writes", 0.8, 200_000),
        Lock("tag", "ROW SHARE", "", 0.8, 9),
    ),
    rewrites=("todo",),
    scans=("todo", "tag"),
)
BACKFILL = Statement(
    "UPDATE todo SET priority = 0 WHERE priority IS NULL", 35, 3.4,
    written={"todo": 180_000}, transactions=18,
)  # fmt: skip
INDEX = Statement(
    "CREATE INDEX CONCURRENTLY todo_priority_idx ON todo (priority)", 40, 75.0,
    locks=(Lock("todo", "SHARE UPDATE EXCLUSIVE", "schema changes", 75, 200_000),),
    scans=("todo",), invalid=("todo_priority_idx",),
)  # fmt: skip
FULL = Review(
    base="0123456789ab",
    below="aaaaaaaaaaaa",
    revisions=(
        Revision("bbbbbbbbbbbb", "Add todo.priority", "2026_01_01_0000_bbbbbbbbbbbb_add.py", False,
                 ("It loses `todo.rank`: no application reads it.",)),
        Revision("cccccccccccc", "Drop verification", "2026_01_02_0000_cccccccccccc_drop.py", True),
    ),
    verdict="blocked",
    sentences=(
        "todo is rewritten while reads and writes wait for 0.8 s.",
        "todo_app can read every user's tags.",
    ),
    findings=(
        Finding("rewrite", "todo", "bbbbbbbbbbbb", "The table is written anew while it is locked.",
                "Add a new column, and fill it in batches.", 31),
        Finding("access", "todo_app SELECT tag", "bbbbbbbbbbbb", "todo_app reads more rows."),
        Finding("backfill", "todo", "bbbbbbbbbbbb", "180,000 rows are written.", "", 35, False),
        Finding("irreversible", "verification", "cccccccccccc", "It cannot be reverted.", "", 20,
                True, "The table was never used."),
    ),
    objects=(
        ObjectChange("table todo", "changed",
                     "  table todo\n-     column rank  text\n+     column priority  bigint\n"),
        ObjectChange("function urgent()", "added", "+ function urgent()\n+     owner  <owner>\n"),
        ObjectChange("table verification", "removed", "- table verification\n"),
    ),
    diagram=Diagram(
        (
            Table("todo", (Column("id", "uuid", "PK"), Column("user_id", "uuid", "PK, FK"),
                           Column("priority", "bigint", "", "added"),
                           Column("rank", "text", "", "removed"),
                           Column("title", "character varying(50)[]", "", "changed")), "changed"),
            Table('"user"', (Column("id", "uuid", "PK"),
                             Column('"createdAt"', "timestamp with time zone"))),
            Table("verification", (Column("id", "uuid", "PK"),), "removed"),
            Table("urgency", (Column("pk", "numeric(10,2)", "PK"),), "added"),
        ),
        (Reference("todo", "user_id", '"user"'), Reference("todo", "priority", "urgency", "added")),
        3,
    ),
    steps=(
        Step("bbbbbbbbbbbb", "upgrade", (
            Transaction((ALTER, BACKFILL), False, 4.3, (LOCK,), 1),
            Transaction((INDEX,), True, 75.0),
        ), 79.4),
        Step("bbbbbbbbbbbb", "downgrade", (
            Transaction((Statement("ALTER TABLE todo DROP COLUMN priority", 50, 0.0001, (LOCK,)),),
                        False, 0.002, (LOCK,)),
        ), 0.002),
    ),
    lints=(
        Lint("adding-not-nullable-field", "bbbbbbbbbbbb", 31, "It fails on rows.", "contradicted"),
        Lint("changing-column-type", "bbbbbbbbbbbb", 31, "It rewrites the table.", "confirmed"),
        Lint("ban-drop-table", "cccccccccccc", 20, "Applications may read it.", "unseen"),
    ),
    access=(
        AccessChange("todo_auth", "todo", "SELECT", "all rows", "no rows", False, False),
        AccessChange("todo_app", "tag", "SELECT of tag.name", "its user's rows", "all rows",
                     True, True),
    ),
    reversals=(
        Reversal("bbbbbbbbbbbb", "inexact", "  table todo\n-     column rank  text\n", "",
                 {"todo.rank": 1_234}, {"todo.rank": "no application reads it"}, 42),
        Reversal("cccccccccccc", "irreversible", "", "The rows are gone."),
        Reversal("dddddddddddd", "exact", compared=7),
        Reversal("eeeeeeeeeeee", "not tried", reason="the upgrade failed"),
    ),
    breaks=(
        Break("base", "todo", "INSERT", "todo_app", "column \"rank\" does not exist"),
        Break("new", "todo", "start-up", "todo_app", "column \"priority\" does not exist"),
    ),
    compared_statements=96,
    failure=Failure("cccccccccccc", "upgrade", 21, "ALTER TABLE todo\n    ADD CHECK (title <> '')",
                    "check constraint is violated by some row", "todo_title_check", 17,
                    "(title: '')"),
    sizes=(
        Size("todo", 200_000, 200_000, 40_000_000, 52_000_000),
        Size("urgency", None, 3, None, 8_192),
        Size("verification", 5, None, 900, None),
    ),
    server="18.4",
    rows=600_000,
    seconds=131.2,
    not_covered=("Statements that the models do not make.",),
)  # fmt: skip

SAFE = Review("0123456789ab", "base", (Revision("bbbbbbbbbbbb", "Add a comment", "add.py", False),),
              "safe", ("Nothing waits.",))  # fmt: skip
NOTHING = Review("0123456789ab", "aaaaaaaaaaaa", (), "nothing", ("There is no new revision.",))
DECIDE = replace(FULL, verdict="decide", failure=None, findings=FULL.findings[2:])


def huge(blocking: int) -> Review:
    """Return a review of 10,000 findings, 5,000 statements and a megabyte of SQL."""
    statement = replace(BACKFILL, sql=f"UPDATE todo SET title = '{'x' * 200}' WHERE <b>")
    transactions = tuple(Transaction((statement,) * 10, False, 1.0, (LOCK,)) for _ in range(500))
    finding = FULL.findings[0]
    return replace(
        FULL,
        findings=tuple(
            replace(finding, object=f"table_{number}", blocking=number < blocking)
            for number in range(10_000)
        ),
        steps=(
            replace(FULL.steps[0], transactions=transactions),
            replace(FULL.steps[1], transactions=transactions),
        ),
        failure=Failure("cccccccccccc", "upgrade", 21, "SELECT 'x';\n" * 90_000, "it fails"),
        objects=FULL.objects * 300,
        access=FULL.access * 500,
        sizes=FULL.sizes * 300,
    )


type Part = Any
"""A review, one of its data classes, or what stands in a field of one."""


def filled(value: Part, text: str) -> Part:
    """Return a copy of a review, or of a part, with a text wherever any text may stand."""
    hints = get_type_hints(type(value))
    changed = {one.name: _filled(getattr(value, one.name), hints[one.name], text)
               for one in fields(value)}  # fmt: skip
    return replace(value, **changed)


def _filled(value: Part, hint: Part, text: str) -> Part:
    if isinstance(value, str):
        return text if hint is str and value else value
    if isinstance(value, Mapping):
        return {text: text if hint == Mapping[str, str] else 5} if value else value
    if isinstance(value, tuple):
        return tuple(text if isinstance(one, str) else filled(one, text) for one in value)
    return filled(value, text) if is_dataclass(value) else value


def slower(value: Part) -> Part:
    """Return a copy of a review, or of a part, in which everything took longer."""
    if isinstance(value, tuple):
        return tuple(map(slower, value))
    if not is_dataclass(value) or isinstance(value, type):
        return value
    changed = {one.name: slower(getattr(value, one.name)) for one in fields(value)}
    if "seconds" in changed:
        changed["seconds"] = changed["seconds"] * 3 + 1
    return replace(value, **changed)


def choices(value: Part) -> Iterator[tuple[str, list[Part]]]:
    """Yield, for each field of a review that has a choice of words, a copy with each of them.

    Only the first part of each kind is changed.
    """
    seen: set[str] = set()
    yield from _choices(value, seen, lambda copy: copy)


def _choices(
    value: Part, seen: set[str], put_back: Callable[[Part], Part]
) -> Iterator[tuple[str, list[Part]]]:
    kind = type(value).__name__
    hints = get_type_hints(type(value))
    for one in fields(value):
        found, name = getattr(value, one.name), f"{kind}.{one.name}"
        hint = getattr(hints[one.name], "__value__", hints[one.name])
        if get_origin(hint) is Literal and name not in seen:
            yield name, [put_back(replace(value, **{one.name: word})) for word in get_args(hint)]
        parts = found if isinstance(found, tuple) else (found,)
        for place, part in enumerate(parts):
            if is_dataclass(part) and not isinstance(part, type):

                def whole(
                    copy: Part, name: str = one.name, found: Part = found, place: int = place
                ) -> Part:
                    if isinstance(found, tuple):
                        copy = (*found[:place], copy, *found[place + 1 :])
                    return put_back(replace(value, **{name: copy}))

                yield from _choices(part, seen, whole)
        seen.add(name)
