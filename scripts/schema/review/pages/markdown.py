"""A review as Markdown, for a comment on GitHub.

What comes from the pull request is disarmed here with a character that is not seen, so that the
writer of the comment has nothing left to change: schema.github.comment.harmless is the rule.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from schema.review.pages import content, wording
from schema.review.pages.blocks import (
    Block,
    Code,
    Detail,
    Fold,
    Grid,
    Heading,
    Items,
    Line,
    Listing,
    Page,
    Paragraph,
    Picture,
    Strong,
)
from schema.review.pages.diagram import mermaid
from schema.review.result import Diagram, Review
from schema.text import fenced, pluralize

MOST_CHARACTERS = 60_000
"""Of the page: the writer of comments cuts after as many."""
_NOTE = 3_000
"""Characters of the note on what is left out, at most."""
_TITLE = 40
"""Characters of a section's title in that note."""

_DETAILS = (
    Detail(text=2_000),
    Detail(text=1_000, sql=False, left_out=("statements in full",)),
    Detail(text=1_000, sql=False, downgrades=False,
           left_out=("statements in full", "the tables of downgrades")),
    Detail(text=1_000, sql=False, downgrades=False, differences=False,
           left_out=("statements in full", "the tables of downgrades", "differences of objects")),
)  # fmt: skip
"""From everything to what is most important."""
_MOST = ((100, 1_000), (30, 1_000), (10, 300))
"""After that: the rows, items and folds of a kind, and the characters of a sentence or a name."""

# Invisible and, unlike a zero-width space, no character that the writer of comments replaces.
_UNSEEN = "\u034f"
# A run is tried once, from its beginning: a long one would otherwise take its square of steps.
_DISARMED = re.compile(
    r"<(?=[A-Za-z/!?])|@(?=\w)|#(?=\d)|GH-(?=\d)|&(?=#?\w+;)|:(?=//)|www(?=\.)|!(?=\[)"
    r"|(?:(?<!`)`{3,}|(?<!~)~{3,})(?=[ ]*(?:geojson|topojson|stl|math))",
    re.IGNORECASE,
)
_DEFINITION = re.compile(r"^[ >]*\[[^\]\n]*\](?=:)", re.MULTILINE)
# Also `$`, between which GitHub draws a formula, and what begins a block at the start of a line.
_SPECIAL = re.compile(r"[\\`*_\[\]~|$]|^[#+=>-]|^\d+(?=[.)](?: |$))")


def markdown(review: Review) -> str:
    """Return the page, of at most MOST_CHARACTERS.

    Where it would be longer, the least important parts are left out first, and it says which. The
    verdict, its sentences and the blocking findings are never left out, except for findings that
    alone are longer than a page.
    """
    for detail in _levels():
        page = content.page(review, detail)
        text = _whole(page, detail)
        if text:
            return text
    return _fitted(content.page(review, _levels()[-1]), _levels()[-1])


def _levels() -> list[Detail]:
    last = _DETAILS[-1]
    shorter = [
        replace(
            last, most=most, text=text,
            left_out=(*last.left_out, f"all but the first {most} of each list and table"),
        )
        for most, text in _MOST
    ]  # fmt: skip
    return [*_DETAILS, *shorter]


def _whole(page: Page, detail: Detail) -> str:
    """Write the page, or return "" if it is too long: the rest of it is not written then."""
    written = [_block(one) for one in (*page.head, *_note(detail.left_out))]
    room = MOST_CHARACTERS - len(_joined(written))
    blocking = _fitting(page.blocking, room)
    if len(blocking) < len(page.blocking):
        return ""
    written += _list(blocking)
    room -= len(_joined(_list(blocking))) + 1
    for one in (block for section in page.sections for block in section):
        written.append(_block(one))
        room -= len(written[-1]) + 2
        if room < 0:
            return ""
    return _joined(written)


def _fitted(page: Page, detail: Detail) -> str:
    """Write as many findings as fit, and then the sections that fit, in their order."""
    head = _written(page.head)
    room = MOST_CHARACTERS - _NOTE - len(head)
    blocking = _fitting(page.blocking, room)
    room -= len(_joined(_list(blocking))) + 1
    shown: list[str] = []
    skipped: list[str] = []
    for section in page.sections:
        text = _written(section)
        if len(text) < room:
            room -= len(text) + 1
            shown.append(text.rstrip("\n"))
        else:
            skipped.append(_title(section))
    left_out = list(detail.left_out)
    if len(blocking) < len(page.blocking):
        left_out.append(pluralize(len(page.blocking) - len(blocking), "more blocking finding"))
    left_out += dict.fromkeys(skipped)
    note = [_block(one) for one in _note(left_out)]
    return _joined([head.rstrip("\n"), *note, *_list(blocking), *shown])


def _fitting(lines: Sequence[Line], room: int) -> list[str]:
    """Write the first lines of a list, as many as have room."""
    written: list[str] = []
    for line in lines:
        written.append(_item(line))
        room -= len(written[-1]) + 1
        if room < 0:
            return written[:-1]
    return written


def _list(items: Sequence[str]) -> list[str]:
    return ["\n".join(items)] if items else []


def _item(line: Line) -> str:
    return f"* {_inline(line)}"


def _title(section: Sequence[Block]) -> str:
    """Return what a section says first."""
    for block in section:
        if isinstance(block, Heading | Paragraph):
            return wording.cut(_plain(block.line), _TITLE)
        if isinstance(block, Fold):
            return wording.cut(_plain(block.title), _TITLE)
        if isinstance(block, Picture):
            return "the diagram"
    return "findings that do not block"


def _plain(line: Line) -> str:
    return "".join(part if isinstance(part, str) else part.text for part in line)


def _note(left_out: Sequence[str]) -> tuple[Block, ...]:
    if not left_out:
        return ()
    words = f" {'; '.join(left_out)}. The HTML page has everything."
    return (Paragraph((Strong("Left out, because the page is too long:"), words)),)


def _written(blocks: Sequence[Block]) -> str:
    return _joined([_block(one) for one in blocks])


def _joined(written: Sequence[str]) -> str:
    return "\n\n".join(written) + "\n"


def _block(block: Block) -> str:
    match block:
        case Heading():
            text = f"{'#' * (block.level + 2)} {_inline(block.line)}"
        case Paragraph():
            text = _inline(block.line)
        case Items():
            text = "\n".join(map(_item, block.lines))
        case Listing():
            text = fenced(_disarmed(block.text), block.language)
        case Grid():
            text = "\n".join(_grid(block))
        case Picture():
            text = _picture(block.diagram)
        case Fold():
            title = _summary(block.title)
            text = f"<details><summary>{title}</summary>\n\n{_written(block.blocks)}\n</details>"
    return text


def _grid(grid: Grid) -> Iterator[str]:
    yield f"| {' | '.join(grid.titles)} |"
    yield f"|{'---|' * len(grid.titles)}"
    for row in grid.rows:
        yield f"| {' | '.join(_inline(cell, cell=True) for cell in row.cells)} |"


def _picture(diagram: Diagram) -> str:
    text = fenced(_disarmed(mermaid(diagram)), "mermaid")
    if diagram.left_out:
        text += f"\n\n{pluralize(diagram.left_out, 'more affected table')}, not drawn."
    return text


def _inline(line: Line, *, cell: bool = False) -> str:
    parts = []
    for part in line:
        match part:
            case Code():
                parts.append(_code(part.text, cell=cell))
            case Strong():
                parts.append(f"**{_text(part.text)}**" if part.text.strip() else "")
            case str():
                parts.append(_text(part))
    return "".join(parts).strip()


def _text(text: str) -> str:
    """Write a text so that it is shown as it is, in one line."""
    lead, trail = text[:1] == " ", text[-1:] == " "
    words = " ".join(_disarmed(text).split())
    words = _SPECIAL.sub(_escaped, words)
    return f"{' ' * lead}{words}{' ' * (trail and bool(words))}"


def _escaped(match: re.Match[str]) -> str:
    found = match[0]
    return f"{found}\\" if found.isdigit() else f"\\{found}"


def _code(text: str, *, cell: bool) -> str:
    words = " ".join(_disarmed(text).split())
    if not words:
        return ""
    if cell:
        words = words.replace("\\|", f"\\{_UNSEEN}|").replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", words)), default=0)
    fence = "`" * (longest + 1)
    # A blank each keeps a backtick from the fence; the character, a fence from being one to draw.
    return f"{fence} {_UNSEEN}{words} {fence}" if longest else f"{fence}{words}{fence}"


def _summary(line: Line) -> str:
    """Write a line inside a tag, where Markdown is not read."""
    return " ".join(_disarmed(_plain(line)).split())


def _disarmed(text: str) -> str:
    """Break what calls, links, loads or opens a tag, and write what is not seen as escapes."""
    text = _DISARMED.sub(lambda match: f"{match[0]}{_UNSEEN}", wording.shown(text))
    return _DEFINITION.sub(lambda match: f"{match[0]}{_UNSEEN}", text)
