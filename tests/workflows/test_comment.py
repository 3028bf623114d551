"""The page of an untrusted job is data: it calls no person, loads nothing, and fits.

The theory: whatever text the job that runs a pull request's code leaves, the comment holds no
working mention, picture, tag or reference; and a file that is no page changes nothing.
"""

import json
import os
import re
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.github.comment import MARKER, MOST_BYTES, MOST_CHARACTERS, harmless
from schema.project import ROOT
from tests.support.github import REPOSITORY, GitHub, github
from tests.support.repo_copy import COMMAND, Launcher, Result

HEAD = "a" * 40
SOURCE = "somebody:a/branch"

PIECES = st.sampled_from(
    ["@everyone", "![x](https://example.com/x.png)", "<img src=x>", "<script>", "</details>", "`",
     "```", "#1", "GH-1", "\u202e", "\x00", "owner/name#2", "text ", "\n", "<!--", "-->", "<b>",
     "&#64;someone", "&commat;x", "&#35;12", "[//]: # (unseen)", "[^1]: unseen", "\U000e0041",
     "https://example.com/x", "www.example.com", "```geojson", "\u00ad"]
)  # fmt: skip


@given(st.lists(PIECES | st.text(max_size=20), max_size=30).map("".join))
def test_nothing_works(text: str) -> None:
    """No mention, picture, tag but a few, reference, or character that reorders text is left."""
    page = harmless(text)
    assert not re.search(r"@\w", page)
    assert "![" not in page
    tag = r"<(?=[A-Za-z/!?])(?!/?(details( open)?|summary|br|sub|sup|kbd|b|i)\s*/?>)"
    assert not re.search(tag, page, re.IGNORECASE)
    assert "CHECK (a <= 5)" in harmless("CHECK (a <= 5)")
    assert not re.search(r"#\d|GH-\d", page, re.IGNORECASE)
    assert not re.search(r"&(?!amp;|lt;)#?\w+;", page)
    assert not re.search(r"^[ >]*\[[^\]\n]*\]:", page, re.MULTILINE)
    assert "://" not in page
    assert "```geojson" not in page
    seen = page.replace("\u2060", "")
    assert not {unicodedata.category(one) for one in seen if one not in "\n\t"} & {"Cc", "Cf", "Co"}


def test_a_long_page_is_cut() -> None:
    """The page says that there is more, where no open code block can swallow it."""
    page = harmless("```diff\n" + "+ a line\n" * 20_000)
    assert len(page) < MOST_CHARACTERS + 200
    assert page.startswith("**The page is longer")


@pytest.fixture
def hub() -> Iterator[GitHub]:
    """A repository with one pull request."""
    with github() as started:
        head = {"sha": HEAD, "label": SOURCE}
        started.pull_requests[5] = {"number": 5, "state": "open", "head": head}
        yield started


def write(
    run: Launcher,
    hub: GitHub,
    page: Path,
    head: str = HEAD,
    by: tuple[str, str] = ("--from", SOURCE),
) -> Result:
    """Run `schema github comment`."""
    given = {"GITHUB_REPOSITORY": REPOSITORY, "GITHUB_API_URL": hub.address, "GITHUB_TOKEN": "t"}
    code = f"import os; os.environ.update({given!r}); {COMMAND}"
    return run.run(ROOT, "github", "comment", str(page), "--head", head, *by, code=code)


def test_one_comment_in_place(run: Launcher, hub: GitHub, tmp_path: Path) -> None:
    """A second run writes over the first; another person's comment with the marker stays."""
    theirs = {"id": 99, "body": f"{MARKER} mine", "user": {"type": "User"}, "html_url": "x"}
    hub.comments[5] = [
        theirs,
        *({"id": n, "body": "a", "user": {"type": "User"}} for n in range(150)),
    ]
    page = tmp_path / "review.md"
    for text in ("first", "second"):
        page.write_text(text, encoding="utf-8")
        result = write(run, hub, page)
        assert result.code == 0, result.everything
    (ours,) = (one for one in hub.comments[5] if one["user"]["type"] == "Bot")
    assert "second" in ours["body"]
    assert theirs["body"] == f"{MARKER} mine"


def test_without_a_page_the_comment_says_so(run: Launcher, hub: GitHub, tmp_path: Path) -> None:
    """The old page, of an earlier push, does not stay."""
    page = tmp_path / "review.md"
    page.write_text("✓", encoding="utf-8")
    by = ("--number", "5")
    assert write(run, hub, page, by=by).code == 0
    page.unlink()
    assert write(run, hub, page, by=by).code == 0
    (ours,) = hub.comments[5]
    assert "The review could not run" in ours["body"]


@pytest.mark.parametrize("by", [("--from", SOURCE), ("--number", "5")], ids=["branch", "number"])
@pytest.mark.parametrize("how", ["closed", "pushed to"])
def test_a_pull_request_that_has_moved_on(
    run: Launcher, hub: GitHub, tmp_path: Path, by: tuple[str, str], how: str
) -> None:
    """Nothing is written, and nothing is wrong."""
    page = tmp_path / "review.md"
    page.write_text("text", encoding="utf-8")
    if how == "closed":
        hub.pull_requests[5]["state"] = "closed"
    else:
        hub.pull_requests[5]["head"]["sha"] = "b" * 40
    result = write(run, hub, page, by=by)
    assert (result.code, "nothing was written" in result.out) == (0, True), result.everything
    assert not hub.comments.get(5)


@pytest.mark.parametrize("which", ["link", "large", "binary"])
def test_what_is_no_page(run: Launcher, hub: GitHub, tmp_path: Path, which: str) -> None:
    """The old page does not stay: the comment says that the review could not run."""
    page = tmp_path / "review.md"
    page.write_text("✓", encoding="utf-8")
    assert write(run, hub, page).code == 0
    match which:
        case "link":
            page.unlink()
            page.symlink_to("/etc/passwd")
        case "large":
            os.truncate(page, MOST_BYTES + 1)
        case "binary":
            page.write_bytes(b"\xff\xfe")
    result = write(run, hub, page)
    assert result.code == 0, result.everything
    (ours,) = hub.comments[5]
    assert "The review could not run" in ours["body"]
    assert "root:" not in ours["body"]


@pytest.mark.parametrize("which", ["head", "two"])
def test_what_is_no_pull_request(run: Launcher, hub: GitHub, tmp_path: Path, which: str) -> None:
    """One sentence, exit code 2, no comment."""
    page = tmp_path / "review.md"
    page.write_text("text", encoding="utf-8")
    head = HEAD
    match which:
        case "head":
            head = "main; rm -rf /"
        case "two":
            hub.pull_requests[6] = hub.pull_requests[5] | {"number": 6}
    result = write(run, hub, page, head)
    assert (result.code, result.out) == (2, ""), result.everything
    assert len(result.err.splitlines()) == 1
    assert "Traceback" not in result.err
    assert not hub.comments.get(5)


@pytest.mark.parametrize(
    ("results", "allowed", "code"),
    [
        ({"lint": "success", "full": "skipped"}, ["full"], 0),
        ({"lint": "success", "full": "failure"}, ["full"], 1),
        ({"lint": "skipped", "full": "skipped"}, ["full"], 1),
        ({"lint": "cancelled"}, [], 1),
    ],
)
def test_the_gate(results: dict[str, str], allowed: list[str], code: int) -> None:
    """It names every job, and passes only if each succeeded or may be skipped."""
    needs = json.dumps({name: {"result": one, "outputs": {}} for name, one in results.items()})
    done = subprocess.run(
        [ROOT / "scripts" / "gate", *allowed],
        env=os.environ | {"NEEDS": needs},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done
    assert all(f"{name}: {one}" in done.stdout for name, one in results.items())
