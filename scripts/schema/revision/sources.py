"""The files of a change: each draft's code, its reason, and what it assumes and loses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from migrations.snapshot import Snapshot
from schema.ddl.definition import by_part
from schema.revision import wording
from schema.revision.code import fill
from schema.revision.code.literals import string
from schema.revision.code.statements import Body, Checks, Orders, Setting, body
from schema.revision.decisions import Answers
from schema.revision.drafts import Draft, Drafts
from schema.revision.files import Source

if TYPE_CHECKING:
    from schema.revision.author import Request

type Texts = tuple[Orders, Checks]
"""What the snapshots do not say."""


def written(
    drafts: Drafts, texts: Texts, request: "Request", both: tuple[Snapshot, Snapshot]
) -> list[Source]:
    """Return the source of each revision."""
    summary = wording.summary(*both)
    why = request.why or f"the models have changed, and the schema follows: {summary}."
    change = _Change(drafts.database, texts, _columns(drafts), request.answers)
    found = []
    for number, draft in enumerate(drafts.drafts):
        title = request.message if number == 0 else wording.title(draft)
        reason = why if number == 0 else wording.reason(draft, request.message)
        if draft.fill is not None:
            found.append(_fill(draft, title, reason))
        else:
            found.append(_source(draft, (title, reason), change))
    return found


def notes(drafts: Drafts, paths: Sequence[Path]) -> Iterator[str]:
    """Say what a person should look at."""
    columns = _columns(drafts)
    for draft, path in zip(drafts.drafts, paths, strict=True):
        for step in draft.upgrade:
            if name := wording.stops_null(step, columns):
                yield (
                    f"{path.name} stops what writes no {name}: deploy the release that writes it"
                    " first"
                )
        for table, condition in wording.assumptions(draft, columns).items():
            yield f"{path.name} {wording.obstacle(table, condition)}"
        if draft.irreversible is not None or draft.fill is not None:
            yield f"{path.name} cannot be reverted: {draft.irreversible or fill.NOT_REVERTED}"
    yield "Say why in the docstring of the first file, if the reason is another one."


def _columns(drafts: Drafts) -> wording.Columns:
    if not drafts.drafts:
        return wording.Columns()
    first, last = by_part(drafts.drafts[0].before), by_part(drafts.drafts[-1].after)
    fills = [draft.fill for draft in drafts.drafts if draft.fill is not None]
    filled = {(one.table, f"column {one.column}") for one in fills}
    there = {key for key in first if key[1].startswith("column ")}
    new = {key for key in last if key[1].startswith("column ")} - there - filled
    return wording.Columns(
        valued=there | filled,
        refilled={(one.table, f"column {one.column}") for one in fills if one.again},
        given=filled - {(one.table, f"column {one.column}") for one in fills if one.again},
        empty={key for key in new if wording.is_empty(last[key])},
    )


@dataclass(frozen=True)
class _Change:
    """What the sources of a change share."""

    database: str
    texts: Texts
    columns: wording.Columns
    answers: Answers


def _source(draft: Draft, words: tuple[str, str], change: _Change) -> Source:
    names = change.database, *change.texts
    up = body(draft.upgrade, Setting(draft.before, draft.after, *names))
    down = body(draft.downgrade, Setting(draft.after, draft.before, *names, "_BEFORE"))
    downgrade = _function(down)
    if draft.irreversible is not None:
        downgrade = [f"raise NotImplementedError({string(draft.irreversible)})"]
    declarations = {
        "assumes": wording.assumptions(draft, change.columns),
        "loses": {
            one: change.answers.losses[one]
            for one in wording.losses(draft)
            if one in change.answers.losses
        },
    }
    changed = {wording.name_of(step.object, step.part) for step in draft.upgrade}
    notes = [
        f"REWRITES {one}: {why}." for one, why in change.answers.rewrites.items() if one in changed
    ]
    return Source(
        *words,
        _function(up),
        downgrade,
        notes=notes,
        constants=[*_constants(up), *_constants(down)],
        declarations={name: one for name, one in declarations.items() if one},
    )


def _fill(draft: Draft, title: str, reason: str) -> Source:
    wanted = draft.fill
    if wanted is None:
        raise ValueError(title)
    facts = by_part(draft.before)
    code = fill.code(wanted.table, wanted.columns, facts)
    return Source(
        title,
        reason,
        code.upgrade,
        [f"raise NotImplementedError({string(fill.NOT_REVERTED)})"],
        notes=[fill.OFFLINE],
        constants=code.constants,
    )


def _function(code: Body) -> list[str]:
    lines = list(code.lines)
    if code.concurrent:
        lines.append("with op.get_context().autocommit_block():")
        lines += [f"    {line}" for line in code.concurrent]
    return lines or ["pass"]


def _constants(code: Body) -> list[str]:
    return [f'{name} = r"""\n{text}\n"""' for name, text in code.constants.items()]
