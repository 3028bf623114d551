"""A review as one HTML file: the same as in Markdown, but never cut.

It has no script and loads nothing; its policy forbids both. On a phone, each row of a table is a
block of its own.
"""

from collections.abc import Iterator, Sequence
from html import escape

from schema.review.pages import content, wording
from schema.review.pages.blocks import (
    Block,
    Code,
    Fold,
    Grid,
    Heading,
    Items,
    Line,
    Listing,
    Paragraph,
    Picture,
    Strong,
)
from schema.review.pages.diagram import plain
from schema.review.result import Column, Diagram, Reference, Review, Table
from schema.text import pluralize

_STYLE = """
:root { color-scheme: light dark; --line: #d0d7de; --soft: #f6f8fa; --quiet: #57606a;
  --added: #116329; --removed: #a40e26; --changed: #7d4e00; }
* { box-sizing: border-box; }
body { background: #fff; color: #1f2328; font: 16px/1.5 system-ui, sans-serif;
  max-width: 75rem; margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3d444d; --soft: #1c2128; --quiet: #9ba4ae;
    --added: #56d364; --removed: #ff7b72; --changed: #e3b341; }
  body { background: #0d1117; color: #e6edf3; }
}
h1 { font-size: 1.5rem; line-height: 1.25; }
h2 { font-size: 1.2rem; border-bottom: 1px solid var(--line); margin-top: 2rem; }
h3 { font-size: 1rem; }
ul { padding-left: 1.2rem; } li { margin: .3rem 0; }
code, pre { font: .85em/1.45 ui-monospace, monospace; background: var(--soft); border-radius: 4px; }
code { padding: .1em .3em; overflow-wrap: anywhere; }
pre { padding: .75rem; overflow-x: auto; }
.added, .safe { color: var(--added); }
.removed, .blocked { color: var(--removed); }
.changed, .decide { color: var(--changed); }
details { margin: .5rem 0; } summary { cursor: pointer; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin: .75rem 0; font-size: .9rem; }
th, td { border: 1px solid var(--line); padding: .35rem .5rem; text-align: left;
  vertical-align: top; }
th, tr.group td { background: var(--soft); }
.boxes { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.boxes table { width: auto; max-width: 100%; }
.boxes caption { text-align: left; font-weight: 600; padding: .25rem 0; overflow-wrap: anywhere; }
.boxes tfoot td { color: var(--quiet); }
.boxes .key { color: var(--quiet); }
.grid td[data-title="time"], .grid td[data-title="hazard"] { white-space: nowrap; }
@media (max-width: 45rem) {
  .grid thead { display: none; }
  .grid, .grid tbody, .grid tr, .grid td { display: block; width: 100%; }
  .grid tr { border: 1px solid var(--line); border-radius: 6px; margin: .6rem 0; padding: .3rem; }
  .grid tr.group { background: var(--soft); }
  .grid td { border: 0; padding: .15rem .3rem; }
  .grid td:empty { display: none; }
  .grid td[data-title]:not([data-title=""])::before { content: attr(data-title) ": ";
    color: var(--quiet); }
}
"""


def html(review: Review) -> str:
    """Return the page, a whole document."""
    page = content.page(review)
    blocks: list[Block] = [*page.head]
    if page.blocking:
        blocks.append(Items(page.blocking))
    blocks += [block for section in page.sections for block in section]
    body = "\n".join(_block(one, review.verdict) for one in blocks)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Review of the schema</title>
<style>{_STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _block(block: Block, verdict: str) -> str:
    match block:
        case Heading():
            name = f' class="{verdict}"' if block.level == 1 else ""
            text = f"<h{block.level}{name}>{_inline(block.line)}</h{block.level}>"
        case Paragraph():
            text = f"<p>{_inline(block.line)}</p>"
        case Items():
            text = "\n".join(
                ["<ul>", *(f"<li>{_inline(one)}</li>" for one in block.lines), "</ul>"]
            )
        case Listing():
            text = _listing(block)
        case Grid():
            text = "\n".join(_grid(block))
        case Picture():
            text = _picture(block.diagram)
        case Fold():
            inner = "\n".join(_block(one, verdict) for one in block.blocks)
            text = f"<details><summary>{_inline(block.title)}</summary>\n{inner}\n</details>"
    return text


def _grid(grid: Grid) -> Iterator[str]:
    yield '<table class="grid"><thead><tr>'
    yield "".join(f"<th>{_safe(title)}</th>" for title in grid.titles)
    yield "</tr></thead><tbody>"
    for row in grid.rows:
        # A group's first two cells say themselves what they are.
        titles = ("", *grid.titles[1:]) if row.group else grid.titles
        cells = (
            f'<td data-title="{_safe(title)}">{_inline(cell)}</td>'
            for title, cell in zip(titles, row.cells, strict=True)
        )
        yield f"<tr{' class="group"' if row.group else ''}>{''.join(cells)}</tr>"
    yield "</tbody></table>"


def _listing(listing: Listing) -> str:
    if listing.language != "diff":
        return f"<pre>{_safe(listing.text)}</pre>"
    marks = {"+": "added", "-": "removed"}
    lines = [
        f'<span class="{marks[line[0]]}">{_safe(line)}</span>' if line[:1] in marks else _safe(line)
        for line in listing.text.rstrip().split("\n")
    ]
    return f"<pre>{'\n'.join(lines)}</pre>"


def _picture(diagram: Diagram) -> str:
    boxes = "\n".join(_box(table, diagram.references) for table in diagram.tables)
    rest = ""
    if diagram.left_out:
        rest = f"\n<p>{pluralize(diagram.left_out, 'more affected table')}, not drawn.</p>"
    return f'<div class="boxes">\n{boxes}\n</div>{rest}'


def _box(table: Table, references: Sequence[Reference]) -> str:
    parts = [
        f"<table><caption{_class(table.mark)}>{_safe(_marked(plain(table.name), table.mark))}"
        "</caption><tbody>"
    ]
    parts += [_column(one) for one in table.columns]
    parts.append("</tbody>")
    own = [one for one in references if one.table == table.name]
    if own:
        parts.append("<tfoot>")
        for one in own:
            words = _marked(f"{plain(one.columns)} → {plain(one.target)}", one.mark)
            parts.append(f'<tr{_class(one.mark)}><td colspan="3">{_safe(words)}</td></tr>')
        parts.append("</tfoot>")
    return "\n".join([*parts, "</table>"])


def _column(one: Column) -> str:
    cells = f"<td>{_safe(plain(one.name))}</td><td>{_safe(one.type)}</td>"
    notes = ", ".join(filter(None, (one.key, one.mark)))
    return f'<tr{_class(one.mark)}>{cells}<td class="key">{_safe(notes)}</td></tr>'


def _marked(text: str, mark: str) -> str:
    return f"{text} ({mark})" if mark else text


def _class(mark: str) -> str:
    return f' class="{mark}"' if mark else ""


def _inline(line: Line) -> str:
    parts = []
    for part in line:
        match part:
            case Code():
                parts.append(f"<code>{_safe(part.text)}</code>" if part.text else "")
            case Strong():
                parts.append(f"<strong>{_safe(part.text)}</strong>")
            case str():
                parts.append(_safe(part))
    return "".join(parts)


def _safe(text: str) -> str:
    return escape(wording.shown(text))
