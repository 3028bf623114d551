"""The output of `schema check`: JSON, in a pipe, on a terminal, and with --quiet.

The theory: the JSON document always has the fields that README.md lists; colour and progress
appear on terminals only; every layout shows every failure.
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
from tests.support.repo_copy import CHECKS, COMMAND, Checkout, Launcher, Result, sql

CHECK = ("check", "--no-lint")
"""Without the lint, which takes longer than all other checks and has its own tests."""

COLOUR = r"\x1b\[[0-9;]*(3[0-7]|38|9[0-7])[;m]"
"""The escape code of a foreground colour."""

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
    """Yield the path of every field of the document, as in README.md, and its type."""
    if isinstance(document, dict):
        for name, value in document.items():
            yield from fields(value, f"{place}.{name}".removeprefix("."))
        return
    types = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array"}
    yield place, "null" if document is None else types[type(document)]
    for one in document if isinstance(document, list) else []:
        yield from fields(one, f"{place}[]")


def documented() -> dict[str, set[str]]:
    """Return the fields that README.md lists, and their types."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("### JSON\n")[2].partition("\n## ")[0]
    found: dict[str, set[str]] = {}
    for names, types in re.findall(r"^\| (`.*?) \| (.*?) \|", section, re.MULTILINE):
        for name in re.findall(r"`(.*?)`", names):
            found[name.removesuffix("[]")] = set(types.split(" or "))
    for name in ("message", "remedy", "detail"):
        assert f"`{name}`" in section
        found[f"checks[].failures[].{name}"] = {"string"}
    for name, kind in {"revision": "string", "tables": "integer", "empty": "array"}.items():
        assert f"`{name}`" in section
        found[f"checks[].rows[].{name}"] = {kind}
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
        for covered in check["rows"]:
            assert set(covered) == {"revision", "tables", "empty"}
        for failure in check["failures"]:
            assert set(failure) == {"message", "remedy", "detail"}
    assert document["version"] == 2
    assert result.out.isascii()
    return document


@pytest.mark.slow
def test_document_of_success(check: Callable[..., Result]) -> None:
    """If all checks pass, the exit code is 0 and the output is only the document."""
    result = check("--json")
    document = assert_documented(result)
    assert (result.code, result.err) == (0, "")
    assert document["passed"] is True
    assert document["error"] is None
    assert all(check["passed"] is True and not check["failures"] for check in document["checks"])
    assert len(document["checks"]) == 9
    assert document["seconds"] > document["starting_seconds"] > 0


@pytest.mark.slow
def test_document_of_failure(copy: Checkout, check: Callable[..., Result]) -> None:
    """If a check fails, the exit code is 1 and the document has the failure and its detail."""
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
    """A check that an earlier failure prevented is in the document, marked as such."""
    copy.add(sql("SELECT 1 / 0"), sql("SELECT 1"))
    result = check("--json")
    document = assert_documented(result)
    assert result.code == 1
    states = {check["name"]: check["passed"] for check in document["checks"]}
    assert states["history"] is True
    assert states["upgrade head"] is False
    assert states["isolation"] is None


def test_document_of_refusal(run: Launcher) -> None:
    """If the checks cannot run, the exit code is 2 and both outputs have the sentence."""
    result = run.run(ROOT, "check", "--json", "--database-url", "mysql://host/database")
    document = assert_documented(result)
    assert result.code == 2
    assert document["passed"] is None
    assert document["error"].startswith("The database URL is for another database system; only")
    assert document["checks"] == []
    assert result.err == f"schema: {document['error']}\n"


# ── --quiet ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_quiet_when_all_pass(check: Callable[..., Result]) -> None:
    """If all checks pass, there is no output."""
    result = check("--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")


@pytest.mark.slow
def test_quiet_when_a_check_fails(copy: Checkout, check: Callable[..., Result]) -> None:
    """Only the failures are printed, without the table."""
    copy.edit("migrations/schema.txt", "table todo", "table other")
    result = check("--quiet")
    assert result.code == 1
    assert [failure.check for failure in result.failures] == ["generated files"]
    assert "passed" not in result.out
    assert "what it covered" not in result.out
    assert f"1 of {len(CHECKS)} checks failed" in result.out


# ── terminals and pipes ───────────────────────────────────────────────────────────────────────────


def on_terminal(columns: int, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run Python on a terminal of that width, and return the exit code and the output."""
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
        except OSError:  # on Linux, the other end is closed
            break
        if not data:  # the same on macOS
            break
        shown += data
    os.close(ours)
    return process.wait(), shown.decode().replace("\r\n", "\n")


def in_pipe(**environment: str) -> str:
    """Return the output in a pipe."""
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
    """On a terminal, passed and failed checks have different colours."""
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
    """With NO_COLOR or on a terminal without colours, only the colours are missing."""
    code, shown = on_terminal(100, "-c", PAGE, **environment)
    assert code == 0, shown
    assert not re.search(COLOUR, shown)
    for words in ("✓ passes", "✗ fails", "not tried", f"- {LONG}", "+ column b"):
        assert words in shown


def test_page_in_a_pipe() -> None:
    """In a pipe there is no escape code, and long lines are not wrapped."""
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
    """The table fits, and long lines are wrapped, not truncated."""
    code, shown = on_terminal(columns, "-c", PAGE, **environment)
    assert code == 0, shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    table, _, rest = plain.partition("✗ generated files:")
    assert max(map(len, table.splitlines())) <= int(environment.get("COLUMNS", columns))
    for word in ("ownership", "1", "owned", "table,", "Better", "Auth's;", "foreign", "roles"):
        assert word in table, table
    assert f"- {LONG}" in rest  # the terminal wraps it


@pytest.mark.slow
def test_page_in_an_encoding_without_signs() -> None:
    """If the encoding has no ✓, another sign replaces it, and the output is complete."""
    page = in_pipe(PYTHONIOENCODING="ascii")
    assert "? passes" in page
    assert "Fix it." in page


@pytest.mark.slow
def test_progress_is_for_terminals(copy: Checkout, server: Server) -> None:
    """On a terminal the progress is shown, and removed at the end."""
    url = server.maintenance.render_as_string(hide_password=False)
    command = ("-P", "-c", COMMAND, *CHECK, "--json", "--database-url", url)
    path = f"{copy.root}{os.pathsep}{copy.root / 'scripts'}"
    code, shown = on_terminal(80, *command, PYTHONPATH=path)
    assert code == 0, shown
    progress, _, document = shown.partition("{\n")
    assert "\x1b[?25l" in progress  # the cursor is hidden
    assert progress.rstrip().endswith(("\x1b[?25h", "\x1b[2K")), progress[-40:]
    assert json.loads("{\n" + document)["passed"] is True
