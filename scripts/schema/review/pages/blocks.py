"""The parts that a page is made of, before they are written as Markdown or as HTML."""

from dataclasses import dataclass, field

from schema.review.result import Diagram


@dataclass(frozen=True)
class Code:
    """A name or a piece of SQL in a line."""

    text: str


@dataclass(frozen=True)
class Strong:
    """Words that stand out."""

    text: str


type Line = tuple[str | Code | Strong, ...]


@dataclass(frozen=True)
class Heading:
    """The title of a section; 1 is the page's."""

    line: Line
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A line of text."""

    line: Line


@dataclass(frozen=True)
class Items:
    """A list."""

    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Listing:
    """Code of several lines."""

    text: str
    language: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a grid; a group stands out, above its rows."""

    cells: tuple[Line, ...]
    group: bool = False


@dataclass(frozen=True)
class Grid:
    """A table on the page."""

    titles: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Picture:
    """The diagram."""

    diagram: Diagram


@dataclass(frozen=True)
class Fold:
    """What is shown on a click."""

    title: Line
    blocks: tuple["Block", ...]


type Block = Heading | Paragraph | Items | Listing | Grid | Picture | Fold


@dataclass(frozen=True)
class Page:
    """A page, the most important part first."""

    head: tuple[Block, ...]
    """The verdict and its sentences, which are always shown."""
    blocking: tuple[Line, ...] = ()
    """What blocks, one finding each."""
    sections: tuple[tuple[Block, ...], ...] = ()


@dataclass(frozen=True)
class Detail:
    """How much a page shows; by default everything."""

    sql: bool = True
    """Statements in full."""
    downgrades: bool = True
    """The statements of downgrades."""
    differences: bool = True
    most: int | None = None
    """Rows, items and folds of a kind; None for all."""
    text: int | None = None
    """Characters of a sentence or a name, and ten times as many of the statement that failed."""
    left_out: tuple[str, ...] = field(default=())
    """What this leaves out, in words."""
