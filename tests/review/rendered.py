"""What a reader sees of a page: its structure and its words."""

from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import groupby

from markdown_it import MarkdownIt
from markdown_it.token import Token

VOID = {"meta"}
ATTRIBUTES = {
    "lang", "charset", "name", "content", "http-equiv", "class", "colspan", "data-title",
}  # fmt: skip
UNSEEN = "\u034f"


def _tokens(page: str) -> list[Token]:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(page)


def structure(page: str) -> list[str]:
    """Return the blocks and the marked parts of a Markdown page, without their words."""
    found = []
    for token in _tokens(page):
        found.append(f"{token.type} {token.tag} {token.info}")
        found += [name for name, _ in groupby(one.type for one in token.children or ())]
        if token.type == "html_block":
            found.append("".join(each.tag for each in parsed(token.content).events))
    return found


def words(page: str) -> str:
    """Return what a Markdown page shows, without blanks and without what is not seen."""
    return squeezed("".join(_shown(page)))


def _shown(page: str) -> Iterator[str]:
    for token in _tokens(page):
        if token.type == "html_block":
            yield parsed(token.content).text
        elif token.type == "inline":
            yield from (one.content for one in token.children or ())
        else:
            yield token.content


def squeezed(text: str) -> str:
    """Return a text without blanks and without the character that is not seen."""
    return "".join(text.replace(UNSEEN, "").split())


class Event:
    """A tag that opens or closes."""

    def __init__(self, tag: str, attributes: dict[str, str | None], *, opens: bool) -> None:
        """Keep what was read."""
        self.tag = tag if opens else f"/{tag}"
        self.attributes = attributes


class Reader(HTMLParser):
    """The tags and the text of HTML; it fails at a tag that closes another than the last."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.events: list[Event] = []
        self.open: list[str] = []
        self.text = ""
        self.styles = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a tag."""
        self.events.append(Event(tag, dict(attrs), opens=True))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the last tag."""
        self.events.append(Event(tag, {}, opens=False))
        if self.open:
            assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
            self.open.pop()

    def handle_data(self, data: str) -> None:
        """Keep the text of the page's body."""
        if self.open[-1:] == ["style"]:
            self.styles += data
        elif self.open[-1:] != ["title"]:
            self.text += data

    def handle_comment(self, data: str) -> None:
        """Refuse a comment: the page has none."""
        raise AssertionError(f"a comment: {data}")


def parsed(html: str) -> Reader:
    """Read HTML, a whole document or a part of one."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader
