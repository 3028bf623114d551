"""What `schema check` prints is made for its reader: a program, a pipe, a terminal, a hurry.

The theory: the JSON document has the same fields whatever happened, those that README.md lists;
colour and progress go to terminals only; nothing that a check found is lost in any layout.
"""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from schema.postgres.scratch import Server
from schema.project import ROOT
from tests.support.repo_copy import COMMAND, Checkout, Launcher, Result, sql

CHECK = ("check", "--no-lint")
"""The command; how SQL is written has tests of its own, and takes longer than all checks."""

COLOUR = r"\x1b\[[0-9;]*(3[0-7]|38|9[0-7])[;m]"
"""How a foreground colour begins."""

LONG = "column " + "of_a_long_definition " * 20 + "end"

PAGE = f"""
import sys
from schema.checks.result import Check, CheckResult, Failure
from schema.cli.check import Report, page
from schema.cli.output import console
failure = Failure("It is not what was built.", "Fix it.", "  table todo\\n- {LONG}\\n+ column b")
covered = "1 owned table, 4 of Better Auth's; 3 foreign keys; 2 roles"
checks = [
    Check("ownership", 1.2, CheckResult(covered)),
    Check("generated files", 0.1, CheckResult("160 lines", [failure])),
    Check("isolation"),
]
console().print(page(Report(checks, "18.4", "abc", 2.5, 0.5)))
"""


@pytest.fixture
def check(run: Launcher, copy: Checkout, server: Server) -> Callable[..., Result]:
    """Run `schema check` in the copy, on the shared server."""
    url = server.maintenance.render_as_string(hide_password=False)
    return lambda *options: run.run(copy.root, *CHECK, "--database-url", url, *options)


# ── the document ──────────────────────────────────────────────────────────────────────────────────


def fields(document: Any, place: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401  # JSON
    """Name every field of the document, as README.md does, and the type of its value."""
    if isinstance(document, dict):
        for name, value in document.items():
            yield from fields(value, f"{place}.{name}".removeprefix("."))
        return
    types = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array"}
    yield place, "null" if document is None else types[type(document)]
    for one in document if isinstance(document, list) else []:
        yield from fields(one, f"{place}[]")


def documented() -> dict[str, set[str]]:
    """The fields and their types that README.md lists."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("### JSON\n")[2].partition("\n## ")[0]
    found: dict[str, set[str]] = {}
    for names, types in re.findall(r"^\| (`.*?) \| (.*?) \|", section, re.MULTILINE):
        for name in re.findall(r"`(.*?)`", names):
            found[name.removesuffix("[]")] = set(types.split(" or "))
    for name in ("message", "remedy", "detail"):
        assert f"`{name}`" in section
        found[f"checks[].failures[].{name}"] = {"string"}
    return found


def assert_documented(result: Result) -> dict[str, Any]:
    """Assert that standard output is one document with the fields and types of README.md."""
    document: dict[str, Any] = json.loads(result.out)
    assert list(document) == [name for name in documented() if "[" not in name]
    for place, kind in fields(document):
        if place.endswith("[]"):
            continue
        allowed = documented()[place]
        assert kind in allowed or (kind == "integer" and "number" in allowed), (place, kind)
    for check in document["checks"]:
        names = {name for name in documented() if re.fullmatch(r"checks\[\]\.\w+", name)}
        assert {f"checks[].{name}" for name in check} == names
        for failure in check["failures"]:
            assert set(failure) == {"message", "remedy", "detail"}
    assert document["version"] == 1
    assert result.out.isascii()
    return document


@pytest.mark.slow
def test_document_of_success(check: Callable[..., Result]) -> None:
    """When all holds: exit code 0, and nothing but the document."""
    result = check("--json")
    document = assert_documented(result)
    assert (result.code, result.err) == (0, "")
    assert document["passed"] is True
    assert document["error"] is None
    assert all(check["passed"] is True and not check["failures"] for check in document["checks"])
    assert len(document["checks"]) == 9
    assert document["seconds"] > document["starting_seconds"] > 0


def test_document_of_failure(copy: Checkout, check: Callable[..., Result]) -> None:
    """When something does not hold: exit code 1, and what it is, with the difference itself."""
    copy.edit("migrations/schema.txt", "table todo", "table töödöö")
    result = check("--json", "--quiet")
    document = assert_documented(result)
    assert (result.code, result.err) == (1, "")
    assert document["passed"] is False
    (failed,) = (one for one in document["checks"] if not one["passed"])
    assert failed["name"] == "generated files"
    (failure,) = failed["failures"]
    assert failure["message"] == "migrations/schema.txt (-) is not what the migrations build (+)."
    assert "schema snapshot" in failure["remedy"]
    assert "- table töödöö" in failure["detail"]


def test_document_of_proofs_that_were_not_tried(
    copy: Checkout, check: Callable[..., Result]
) -> None:
    """A check that an earlier one made impossible is there, and says so."""
    copy.add(sql("SELECT 1 / 0"), sql("SELECT 1"))
    result = check("--json")
    document = assert_documented(result)
    assert result.code == 1
    states = {check["name"]: check["passed"] for check in document["checks"]}
    assert states["history"] is True
    assert states["upgrade head"] is False
    assert states["isolation"] is None


def test_document_of_refusal(run: Launcher) -> None:
    """When the checks cannot be tried: exit code 2, and the sentence in both places."""
    result = run.run(ROOT, "check", "--json", "--database-url", "mysql://host/database")
    document = assert_documented(result)
    assert result.code == 2
    assert document["passed"] is None
    assert document["error"].startswith("The database URL is another system's; only")
    assert document["checks"] == []
    assert result.err == f"schema: {document['error']}\n"


# ── in a hurry ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_quiet_when_all_holds(check: Callable[..., Result]) -> None:
    """Nothing at all is printed."""
    result = check("--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_quiet_when_something_does_not_hold(copy: Checkout, check: Callable[..., Result]) -> None:
    """Only what does not hold is printed: no table, no check that holds."""
    copy.edit("migrations/schema.txt", "table todo", "table other")
    result = check("--quiet")
    assert result.code == 1
    assert [failure.check for failure in result.failures] == ["generated files"]
    assert "passed" not in result.out
    assert "what it covered" not in result.out
    assert "1 of 9 checks failed" in result.out


# ── terminals and pipes ───────────────────────────────────────────────────────────────────────────


def on_terminal(columns: int, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run Python with a terminal of that width for all its streams, and return what it shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    own = {"NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "LINES"}
    clean = {name: value for name, value in os.environ.items() if name not in own}
    process = subprocess.Popen(
        [sys.executable, "-B", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=clean | {"TERM": "xterm-256color"} | environment,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not data:  # macOS says it so
            break
        shown += data
    os.close(ours)
    return process.wait(), shown.decode().replace("\r\n", "\n")


def in_pipe(**environment: str) -> str:
    """What the page is in a pipe."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", PAGE],
        env=os.environ | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    return done.stdout.decode()


def test_page_on_a_terminal_has_colour() -> None:
    """On a terminal, what holds and what does not can be told by colour."""
    code, shown = on_terminal(100, "-c", PAGE)
    assert code == 0, shown
    assert "\x1b[32m✓ passes" in shown
    assert "\x1b[1;31m✗ fails" in shown
    assert f"\x1b[31m- {LONG}" in shown
    assert "\x1b[32m+ column b" in shown


@pytest.mark.parametrize(
    "environment",
    [{"NO_COLOR": "1"}, pytest.param({"TERM": "dumb"}, marks=pytest.mark.slow)],
    ids=str,
)
def test_page_without_colour(environment: dict[str, str]) -> None:
    """NO_COLOR and a terminal that has none are respected, and nothing else is lost."""
    code, shown = on_terminal(100, "-c", PAGE, **environment)
    assert code == 0, shown
    assert not re.search(COLOUR, shown)
    for words in ("✓ passes", "✗ fails", "not tried", f"- {LONG}", "+ column b"):
        assert words in shown


def test_page_in_a_pipe() -> None:
    """In a pipe there is no escape code, and every line is whole, however long."""
    page = in_pipe()
    assert "\x1b" not in page
    lines = page.splitlines()
    assert f"    - {LONG}" in lines
    assert "  → Fix it." in lines
    assert any("1 owned table, 4 of Better Auth's; 3 foreign keys; 2 roles" in one for one in lines)


@pytest.mark.parametrize(
    ("columns", "environment"),
    [
        (60, {}),
        pytest.param(45, {}, marks=pytest.mark.slow),
        pytest.param(100, {"COLUMNS": "60"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_page_on_a_narrow_terminal(columns: int, environment: dict[str, str]) -> None:
    """The table fits and says everything; what is longer than a line is wrapped, not cut."""
    code, shown = on_terminal(columns, "-c", PAGE, **environment)
    assert code == 0, shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    table, _, rest = plain.partition("✗ generated files:")
    assert max(map(len, table.splitlines())) <= int(environment.get("COLUMNS", columns))
    for word in ("ownership", "1", "owned", "table,", "Better", "Auth's;", "foreign", "roles"):
        assert word in table, table
    assert f"- {LONG}" in rest  # the terminal itself wraps it


@pytest.mark.slow
def test_page_in_an_encoding_without_signs() -> None:
    """Where ✓ cannot be written something else is, and the page is whole."""
    page = in_pipe(PYTHONIOENCODING="ascii")
    assert "? holds" in page
    assert "Fix it." in page


def test_progress_is_for_terminals(copy: Checkout, server: Server) -> None:
    """On a terminal progress is shown, and gone at the end; the document stays readable there."""
    url = server.maintenance.render_as_string(hide_password=False)
    command = ("-P", "-c", COMMAND, *CHECK, "--json", "--database-url", url)
    path = f"{copy.root}{os.pathsep}{copy.root / 'scripts'}"
    code, shown = on_terminal(80, *command, PYTHONPATH=path)
    assert code == 0, shown
    progress, _, document = shown.partition("{\n")
    assert "\x1b[?25l" in progress  # the cursor is hidden meanwhile
    assert progress.rstrip().endswith(("\x1b[?25h", "\x1b[2K")), progress[-40:]
    assert json.loads("{\n" + document)["passed"] is True
