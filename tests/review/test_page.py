"""The pages of a review show all of it, break at no name and no SQL, and fit into a comment.

The theory: the Markdown and the HTML page come from the same blocks, so what matters is how each
writes them. A text is written rightly if it changes nothing but the words: the structure that a
parser of Markdown, or of HTML, finds is that of the same review with plain words. The comment's
writer is the judge of what is harmless; the page must leave it nothing to change.
"""

import json
import re
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.github.comment import MOST_CHARACTERS, harmless
from schema.review.pages import markdown as markdown_module
from schema.review.pages import wording
from schema.review.pages.document import document
from schema.review.pages.html import html
from schema.review.pages.markdown import markdown
from schema.review.result import Diagram, Finding, Review, Statement
from tests.review.rendered import ATTRIBUTES, parsed, squeezed, structure, words
from tests.review.reviews import (
    DECIDE,
    FULL,
    NOTHING,
    SAFE,
    choices,
    filled,
    huge,
    slower,
)

EVIL = [
    "<script>alert(1)</script>", "</details>", "</summary>", "<b>", "<!-- ", "a|b", "\\|", "\\",
    "`", "``", "``` math", "~~~stl", "*x*", "_x_", "**", "[a](//b.c)", "![a](b)", "[x]: y", "@user",
    "#12", "GH-12", "&lt;", "&#124;", "https://a.example", "www.a.example", "- ", "1. ", "# ", "> ",
    "+ ", "===", "---", "|---|", "$x$", "\u202e", "\u200b", "\x00", "\x1b[31m", "\ud800", "é", "表",
    "'", '"', "\t", "\r\n", "\n\n", "%%", "::", ":-:", "<a@b.example>", "x", "!", "[",
]  # fmt: skip
PAGES = {"full": FULL, "decide": DECIDE, "safe": SAFE, "nothing": NOTHING}
# Every text ends so, that a statement is in more than one line whatever it begins with.
END = "\nend"
TEXTS = st.lists(
    st.one_of(st.sampled_from(EVIL), st.characters(), st.just(" ")), min_size=1, max_size=6
).map("".join).filter(lambda text: bool(squeezed(text)))  # fmt: skip


def tags(page: str) -> list[str]:
    """Return the tags of a page of HTML, without those that colour a line of a difference."""
    return [one.tag for one in parsed(page).events if one.tag.strip("/") != "span"]


@pytest.mark.parametrize("text", EVIL)
def test_a_text_is_shown_and_changes_nothing_else(text: str) -> None:
    """Each text that means something in Markdown or HTML is shown, and leaves the structure."""
    if not squeezed(text):
        text = f"a{text}b"
    review, plain = filled(FULL, text + END), filled(FULL, "plain" + END)
    page = markdown(review)
    assert harmless(page) == page
    assert structure(page) == structure(markdown(plain))
    assert squeezed(wording.shown(text + END)) in words(page)
    assert tags(html(review)) == tags(html(plain))
    assert squeezed(wording.shown(text + END)) in squeezed(parsed(html(review)).text)


@pytest.mark.slow
@given(TEXTS)
@settings(deadline=None, max_examples=40)
def test_any_text_is_harmless(text: str) -> None:
    """So is any mixture of them."""
    review, plain = filled(FULL, text + END), filled(FULL, "plain" + END)
    page = markdown(review)
    assert harmless(page) == page
    assert structure(page) == structure(markdown(plain))
    assert tags(html(review)) == tags(html(plain))


def test_a_text_that_is_not_escaped_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison of structures sees an escape that is missing."""
    found = set()
    monkeypatch.setattr(markdown_module, "_text", lambda text: " ".join(text.split()))
    plain = structure(markdown(filled(FULL, "plain" + END)))
    for text in EVIL:
        if structure(markdown(filled(FULL, text + END))) != plain:
            found.add(text)
    assert {"a|b", "*x*", "![a](b)", "<b>"} <= found


@pytest.mark.parametrize("name", PAGES)
def test_the_writer_of_comments_changes_nothing(name: str) -> None:
    """Nothing of a page is lost on the way into a comment."""
    page = markdown(PAGES[name])
    assert harmless(page) == page


def test_the_writer_of_comments_is_a_judge() -> None:
    """A page that was not disarmed would be changed."""
    assert harmless("+     owner  <owner>") != "+     owner  <owner>"


@pytest.mark.parametrize("name", PAGES)
def test_both_pages_show_the_same(name: str) -> None:
    """Markdown and HTML have the same words in the same order; only the diagram is drawn twice."""
    review = replace(PAGES[name], diagram=Diagram())
    assert words(markdown(review)) == squeezed(parsed(html(review)).text)


def test_everything_is_shown() -> None:
    """A text in any field of a review stands on both pages."""
    for one in fields(FULL):
        review = replace(FULL, **{one.name: getattr(filled(FULL, "mark8"), one.name)})
        if review == FULL:
            continue
        assert "mark8" in words(markdown(review)), one.name
        assert "mark8" in parsed(html(review)).text, one.name


@pytest.mark.parametrize(("name", "reviews"), [*choices(FULL)], ids=lambda one: str(one)[:30])
def test_every_choice_is_shown(name: str, reviews: list[Review]) -> None:
    """Each word of a field with a choice makes a page that differs from the others."""
    assert len(reviews) > 1, name
    assert len({markdown(one) for one in reviews}) == len(reviews), name
    assert len({html(one) for one in reviews}) == len(reviews), name


@pytest.mark.parametrize(
    ("review", "title"),
    [
        (FULL, "### ✗ Blocked: the upgrade of cccccccccccc fails, 2 findings\n"),
        (replace(FULL, failure=None), "### ✗ Blocked: 2 findings\n"),
        (DECIDE, "### ! Needs a decision\n"),
        (SAFE, "### ✓ Safe\n"),
        (NOTHING, "There is no new revision.\n"),
    ],
    ids=["fails", "blocked", "decide", "safe", "nothing"],
)
def test_the_verdict_comes_first(review: Review, title: str) -> None:
    """The first line says what to do; without a new revision it is the only one."""
    page = markdown(review)
    assert page.startswith(title)
    if review is NOTHING:
        assert page == title


def test_the_order_is_that_of_importance() -> None:
    """What blocks stands above what does not, that above what is accepted, then the rest."""
    page = markdown(FULL)
    order = [
        "todo is rewritten while", "**✗ rewrite**", "**✗ access**", "**! backfill**",
        "1 accepted finding", "What changes", "```mermaid", "How it ran", "Lint:", "Access:",
        "Reversal", "Compatibility", "Sizes",
    ]  # fmt: skip
    places = [page.index(words) for words in order]
    assert places == sorted(places)
    assert page.index("! wider") < page.index("narrower |")


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (("base",), "Deploy the code first"),
        (("new",), "Deploy the migration first"),
        (("base", "new"), "two steps"),
        ((), "in any order"),
    ],
)
def test_what_to_deploy_first(models: tuple[str, ...], said: str) -> None:
    """Models that break on the other schema say what must be there before."""
    review = replace(FULL, breaks=tuple(one for one in FULL.breaks if one.models in models))
    assert said in markdown(review)
    assert said in str(document(review)["deployment"])
    untried = replace(review, breaks=(), compared_statements=0)
    assert "Compatibility" not in markdown(untried)


def test_equal_reviews_make_equal_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs differ in times only, and every time comes from one function."""
    again = slower(FULL)
    assert markdown(again) != markdown(FULL)
    assert html(again) != html(FULL)
    monkeypatch.setattr(wording, "duration", lambda _seconds: "TIME")
    assert markdown(again) == markdown(FULL)
    assert html(again) == html(FULL)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "< 1 ms"), (0.0124, "12 ms"), (0.9996, "1.0 s"), (59.96, "1 min 0 s"), (125, "2 min 5 s")],
)
def test_a_time_is_short(seconds: float, said: str) -> None:
    """A time has two or three digits, and no unit twice."""
    assert wording.duration(seconds) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [(None, "none"), (900, "900 bytes"), (8192, "8.0 kB"), (52_000_000, "50 MB")],
)
def test_a_size_is_short(number: int | None, said: str) -> None:
    """A size has the unit that makes it short."""
    assert wording.size(number) == said


@pytest.mark.slow
def test_a_huge_review_fits() -> None:
    """Of 10,000 findings and 5,000 statements, what blocks is shown, and what is left out said."""
    review = huge(20)
    page = markdown(review)
    assert len(page) <= MOST_CHARACTERS == markdown_module.MOST_CHARACTERS
    assert harmless(page) == page
    assert page.startswith("### ✗ Blocked")
    assert all(f"* {one}\n" in page.replace("\\", "") for one in review.sentences)
    assert all(f"`table_{number}`" in page for number in range(20))
    assert "**Left out, because the page is too long:** statements in full;" in page
    assert re.search(r"and 9,\d{3} more", page)


@pytest.mark.slow
def test_thousands_of_blocking_findings_are_cut() -> None:
    """Only what alone is longer than a page is cut, in its order, and the page says how many."""
    review = huge(10_000)
    page = markdown(review)
    assert len(page) <= MOST_CHARACTERS
    assert harmless(page) == page
    shown = [number for number in range(10_000) if f"`table_{number}`" in page]
    assert shown == list(range(len(shown)))
    assert len(shown) > 100
    assert f"{10_000 - len(shown):,} more blocking findings" in page
    assert all(f"* {one}\n" in page.replace("\\", "") for one in review.sentences)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["x", "<", "`", "|", "\\", "&lt;", "\x00", "```\n"])
def test_long_texts_fit(text: str) -> None:
    """A megabyte of texts makes no page too long, whatever they are made of."""
    long = text * (20_000 // len(text))
    page = markdown(filled(FULL, f"x{long}"))
    assert len(page) <= MOST_CHARACTERS
    assert page.startswith("### ✗ Blocked")
    assert harmless(page) == page


@pytest.mark.slow
def test_the_least_important_goes_first() -> None:
    """As a review grows, statements in full go first, then downgrades, differences and rows."""
    order = ["statements in full", "the tables of downgrades", "differences of objects", "first"]
    reached = set()
    for number in (1, 20, 60, 100, 140, 200, 400, 1_200):
        statement = replace(FULL.steps[0].transactions[0].statements[0], sql=f"SELECT\n{number}")
        steps = tuple(
            replace(
                step,
                transactions=(replace(step.transactions[0], statements=(statement,) * number),),
            )
            for step in FULL.steps
        )
        page = markdown(replace(FULL, steps=steps, objects=FULL.objects * (number // 4)))
        note = next((line for line in page.splitlines() if line.startswith("**Left out")), "")
        said = [words for words in order if words in note]
        assert said == order[: len(said)]
        assert len(page) <= MOST_CHARACTERS
        reached.add(len(said))
    assert reached >= {0, 2, 4}


@pytest.mark.slow
def test_html_has_everything() -> None:
    """The HTML page of a huge review lacks no finding."""
    page = html(huge(20))
    assert page.count("<code>table_") == 10_000
    assert "Left out" not in page


def test_html_is_well_formed_and_loads_nothing() -> None:
    """Every tag is closed, in its order; there is no script, no link, no address."""
    reader = parsed(html(FULL))
    assert reader.open == []
    assert {one.tag.strip("/") for one in reader.events}.isdisjoint(
        {"script", "link", "img", "iframe", "a", "object", "embed", "form", "base"}
    )
    assert {name for one in reader.events for name in one.attributes} <= ATTRIBUTES
    assert "//" not in html(FULL)
    assert "url(" not in reader.styles
    assert "@import" not in reader.styles


def test_html_that_is_not_well_formed_is_found() -> None:
    """The reader fails at a tag that closes another one."""
    with pytest.raises(AssertionError, match="closes <b>"):
        parsed("<p><b>x</p></b>")


def test_html_draws_the_tables() -> None:
    """Each affected table is a box with its columns, and says what happens to them."""
    page = html(FULL)
    assert page.count('<div class="boxes">') == 1
    for words_shown in ("todo (changed)", "urgency (added)", "verification (removed)"):
        assert words_shown in page
    assert (
        '<tr class="added"><td>priority</td><td>bigint</td><td class="key">added</td></tr>' in page
    )
    assert "user_id → user" in page
    assert "3 more affected tables" in page


def test_the_document_has_every_field() -> None:
    """The JSON has each field of a review, in JSON's types, and whether nothing blocks."""
    found = json.loads(json.dumps(document(FULL)))
    assert found.keys() == {one.name for one in fields(FULL)} | {"ok", "deployment"}
    assert found["ok"] is False
    statement = found["steps"][0]["transactions"][0]["statements"][1]
    assert statement.keys() == {one.name for one in fields(Statement)}
    assert statement["written"] == {"todo": 180_000}
    assert found["findings"][0].keys() == {one.name for one in fields(Finding)}
