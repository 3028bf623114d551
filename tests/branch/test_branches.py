"""The life of branches, through the command line, against the stand-in for Neon.

The theory: whatever a branch of that name was before, `create` leaves one at its parent's newest
state, and `delete` none; nothing else in the project changes, and no output holds a secret.
"""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import httpx
import psycopg
import pytest

from schema.branch.branches import all_branches
from schema.branch.lifecycle import Wanted, create
from schema.branch.neon import Neon
from schema.errors import CannotRunError
from schema.project import ROOT, own_environment, scripts
from schema.revisions.history import single_head
from tests.branch.conftest import KEY, Schema, environment_of, execute, scalar, url_of
from tests.branch.stand_in.server import REFUSED, UNCLEAR, StandIn
from tests.branch.stand_in.state import PROJECT
from tests.support.github import GitHub
from tests.support.repo_copy import COMMAND, Checkout, Launcher, Result, sql

HEAD = single_head(scripts()) or ""
ROWS = 'SELECT count(*) FROM "user"'


def done(result: Result) -> str:
    """Assert that a command succeeded, and return what it printed."""
    assert result.code == 0, result.everything
    assert KEY not in result.out + result.err
    return result.out


@pytest.mark.slow
def test_a_pull_request(neon: StandIn, schema: Schema) -> None:
    """Opened, pushed to twice, closed: each push begins where the parent is, not where it was."""
    first = done(schema("create", "--pr", "12", "--parent", "main", "--copy"))
    assert f"at revision {HEAD}" in first
    url = done(schema("url", "--pr", "12")).strip()
    assert scalar(url, ROWS) == scalar(url_of(neon.state.main), ROWS)
    execute(url, "CREATE TABLE pushed (a integer)")
    neon.state.main.compute.execute("neondb", "CREATE TABLE moved (a integer)")
    for _ in range(2):
        assert "schema-pr-12" in done(schema("create", "--pr", "12", "--parent", "main", "--copy"))
        url = done(schema("url", "--pr", "12")).strip()
        assert scalar(url, "SELECT to_regclass('pushed') IS NULL AND to_regclass('moved') > 0")
    made = neon.state.named("schema-pr-12")
    assert made is not None
    assert made.compute.starts >= 2  # each began cold
    neon.state.main.compute.execute("neondb", "DROP TABLE moved")
    assert done(schema("delete", "--pr", "12")) == "Branch schema-pr-12 is deleted.\n"
    assert done(schema("delete", "--pr", "12")) == "There is no branch schema-pr-12.\n"
    assert [one.api["name"] for one in neon.state.branches.values()] == ["main"]


@pytest.mark.slow
def test_the_commands_of_the_readme(neon: StandIn, hub: GitHub, schema: Schema) -> None:
    """Each line of README.md's section, in its order, does what the section says."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Neon branches")[2]
    lines = re.findall(r"^\$ \.venv/bin/schema branch (.*?)(?: +#.*)?$", section, re.MULTILINE)
    neon.state.create({"branch": {"name": "staging"}})
    hub.pull_requests = {12: {"state": "closed"}}
    for line in lines:
        result = schema(*line.split())
        assert result.code == (1 if line == "try" else 0), (line, result.everything)
    assert {"create", "url", "reset", "list", "delete", "prune", "try"} <= {
        line.split()[0] for line in lines
    }


@pytest.mark.slow
def test_two_pull_requests(neon: StandIn, schema: Schema) -> None:
    """Opened at once, one of them pushed to at once: each ends with one branch, listed by page."""
    neon.state.page_size = 1
    environment = own_environment() | environment_of(neon)
    command = [
        sys.executable,
        "-P",
        "-m",
        "schema.cli.main",
        "branch",
        "create",
        "--copy",
        "--parent",
        "main",
        "--pr",
    ]
    running = [
        subprocess.Popen(
            [*command, number], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for number in ("1", "2", "2")
    ]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    document = json.loads(done(schema("list", "--json")))
    assert [one["pull_request"] for one in document["branches"]] == [1, 2]
    assert all(one["expires_at"] for one in document["branches"])
    assert "schema-pr-1 " in done(schema("list"))


@pytest.mark.slow
def test_a_timeout(neon: StandIn) -> None:
    """An answer that comes too late is a lost one: the branch is found, and made once."""
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=f"{neon.address}/", headers=headers, timeout=1) as client:
        for number in range(8):
            neon.order({number: "late"})
            wanted = Wanted("schema-late", "main", "copy")
            branch = create(Neon(PROJECT, client), wanted, lambda _: None).branch
            assert (branch.name, branch.state) == ("schema-late", "ready")
    assert len(neon.state.branches) == 2


@pytest.mark.slow
def test_an_expiry_is_always_given(neon: StandIn, schema: Schema) -> None:
    """A week by default, also after a reset, and never more than Neon allows."""
    done(schema("create", "mine", "--parent", "main", "--copy"))
    made = neon.state.named("schema-mine")
    assert made is not None
    assert abs(made.api["ttl_interval_seconds"] - 7 * 86400) < 60
    done(schema("reset", "mine", "--days", "2"))
    assert abs(made.api["ttl_interval_seconds"] - 2 * 86400) < 60
    assert schema("create", "mine", "--parent", "main", "--copy", "--days", "31").code == 2


@pytest.mark.slow
def test_passwords_of_a_protected_parent(neon: StandIn, schema: Schema) -> None:
    """The branch's owner has a new password; it is in the URL only, and masked on GitHub first."""
    neon.state.main.api["protected"] = True
    made = schema("create", "--pr", "3", "--parent", "main", "--copy", GITHUB_ACTIONS="true")
    branch = neon.state.named("schema-pr-3")
    assert branch is not None
    assert branch.password != neon.state.main.password
    assert f"::add-mask::{branch.password}" in made.err
    assert made.err.startswith(f"::add-mask::{KEY}\n")
    assert branch.password not in made.out
    url = schema("url", "--pr", "3", GITHUB_ACTIONS="true")
    printed = url.out.strip()
    with psycopg.connect(printed) as connection:  # as it is printed, without this project's parser
        assert connection.execute("SELECT 1").fetchone() == (1,)
    masked = {line.removeprefix("::add-mask::") for line in url.err.splitlines()}
    encoded = printed.rpartition("@")[0].rpartition(":")[2]
    assert encoded.replace("%", "%25") in masked  # as the runner reads a command
    quiet = schema("create", "--pr", "3", "--parent", "main", "--copy")
    assert branch.password not in quiet.out + quiet.err


@pytest.mark.slow
@pytest.mark.parametrize("which", ["default", "protected", "foreign"])
def test_what_is_not_ours_stays(neon: StandIn, schema: Schema, which: str) -> None:
    """Neither the default branch, nor a protected one, nor one without our prefix changes."""
    if which == "protected":
        done(schema("create", "mine", "--parent", "main", "--copy"))
        made = neon.state.named("schema-mine")
    else:
        made = neon.state.main
        made.api["name"] = "schema-mine" if which == "default" else "mine"
    assert made is not None
    made.api["protected"] = which == "protected"
    try:
        before = dict(made.api)
        if which != "foreign":
            for verb in ("create", "reset", "delete"):
                parent = ["--parent", "main"] if verb == "create" else []
                result = schema(verb, "mine", *parent)
                assert result.code == 2, result.everything
                assert "stays as it is" in result.err
        else:
            assert "There is no branch schema-mine" in done(schema("delete", "mine"))
        assert made.api == before
        assert made.api["id"] in neon.state.branches
    finally:
        made.api["protected"] = False
        neon.state.main.api["name"] = "main"


@pytest.mark.slow
def test_schema_only(neon: StandIn, schema: Schema) -> None:
    """The rows are made, none is the parent's, and the revision is known; a reset makes it anew."""
    neon.state.main.compute.execute("neondb", "UPDATE \"user\" SET name = 'a real person'")
    assert f"at revision {HEAD}" in done(
        schema("create", "mine", "--parent", "main", "--schema-only")
    )
    made = neon.state.named("schema-mine")
    assert made is not None
    url = done(schema("url", "mine")).strip()
    assert scalar(url, ROWS) != 0
    assert scalar(url, f"{ROWS} WHERE name = 'a real person'") == 0
    assert "Name the parent of schema-mine again" in schema("reset", "mine").err
    done(schema("reset", "mine", "--parent", "main"))
    again = neon.state.named("schema-mine")
    assert again is not None
    assert again.api["id"] != made.api["id"]
    assert again.api["init_source"] == "schema-only"


@pytest.mark.slow
def test_another_kind_is_made_anew(schema: Schema) -> None:
    """The kind changes only where another one is asked for: a forgotten option shows no row."""

    def kind() -> str:
        (one,) = json.loads(done(schema("list", "--json")))["branches"]
        return str(one["kind"])

    done(schema("create", "mine", "--parent", "main", "--copy"))
    done(schema("create", "mine", "--parent", "main", "--schema-only"))
    assert kind() == "schema-only"
    done(schema("create", "mine", "--parent", "main"))
    assert kind() == "schema-only"
    done(schema("create", "mine", "--parent", "main", "--anonymised"))
    done(schema("create", "mine", "--parent", "main"))
    assert kind() == "anonymised"
    done(schema("create", "mine", "--parent", "main", "--copy"))
    assert kind() == "copy"


@pytest.mark.slow
def test_what_cannot_be_made_deletes_nothing(neon: StandIn, schema: Schema) -> None:
    """A parent that Neon would refuse is refused before the old branch goes."""
    for name in ("mine", "other"):
        done(schema("create", name, "--parent", "main", "--copy"))
    for parent, says in (("schema-mine", "its own parent"), ("schema-other", "expires itself")):
        result = schema("create", "mine", "--parent", parent, "--copy")
        assert result.code == 2
        assert says in result.err, result.everything
        assert neon.state.named("schema-mine") is not None


@pytest.mark.slow
def test_a_schema_only_branch_is_at_its_parents_revision(
    neon: StandIn, run: Launcher, copy: Checkout
) -> None:
    """A revision that changes rows only is not taken as run: it is what the branch is for."""
    copy.add(sql("UPDATE todo SET title = 'x' WHERE false"), sql("SELECT 1"))
    done(run.run(copy.root, "snapshot"))
    given = environment_of(neon)
    code = f"import os; os.environ.update({given!r}); {COMMAND}"
    arguments = ("branch", "create", "mine", "--parent", "main", "--schema-only")
    assert f"at revision {HEAD}" in done(run.run(copy.root, *arguments, code=code))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_try_is_interrupted(neon: StandIn, number: signal.Signals) -> None:
    """Whatever ends it, the branch is deleted."""
    command = [sys.executable, "-P", "-m", "schema.cli.main", "branch", "try"]
    environment = own_environment() | environment_of(neon)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        while len(neon.state.branches) < 2:
            time.sleep(0.02)
        process.send_signal(number)
        process.communicate()
    assert process.returncode in {130, 143}
    assert len(neon.state.branches) == 1


@pytest.mark.slow
def test_restore_point(neon: StandIn, schema: Schema) -> None:
    """It keeps the parent's rows, has no compute, and the printed request goes back to them."""
    main = neon.state.main
    before = scalar(url_of(main), ROWS)
    said = done(schema("create", "--restore-point", "--parent", "main"))
    (point,) = (one for one in neon.state.branches.values() if one is not main)
    assert point.endpoint is None
    assert point.api["name"].startswith("schema-restore-")
    for arguments in (("create", "mine", "--restore-point"), ("reset", point.api["name"])):
        assert schema(*arguments).code == 2
    main.compute.execute("neondb", 'DELETE FROM "user"')
    path = re.search(r"/projects/\S+/restore", said)
    body = re.search(r"-d '(.*)'", said)
    assert path is not None
    assert body is not None
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = httpx.post(f"{neon.address}{path[0]}", content=body[1], headers=headers)
    assert answer.status_code == 200, answer.text
    while main.api["current_state"] != "ready":
        time.sleep(0.05)
    main.compute.start()
    assert scalar(url_of(main), ROWS) == before
    kept = neon.state.named("before-going-back")
    assert kept is not None
    kept.compute.start()
    assert scalar(url_of(kept), ROWS) == 0


@pytest.mark.slow
def test_prune(neon: StandIn, hub: GitHub, schema: Schema) -> None:
    """Branches of closed pull requests go; one that cannot be looked up stays, and is named."""
    for number in ("4", "5", "6"):
        done(schema("create", "--pr", number, "--parent", "main", "--copy"))
    hub.pull_requests = {4: {"state": "closed"}, 5: {"state": "open"}}
    result = schema("prune")
    assert result.code == 2
    assert "schema-pr-6: stays. owner/name has no pull request 6" in result.err
    assert "schema-pr-4: deleted" in result.out
    left = {one.api["name"] for one in neon.state.branches.values()}
    assert left == {"main", "schema-pr-5", "schema-pr-6"}


def _limit(neon: StandIn) -> None:
    neon.state.limit = 1


def _no_key(neon: StandIn) -> None:
    neon.state.keys = {}


def _lost_rights(neon: StandIn) -> None:
    neon.state.keys = {KEY: "read"}


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("happens", "environment", "says"),
    [
        (_limit, {}, "as many branches as its plan allows; delete one, or let schema branch prune"),
        (_no_key, {}, "Neon does not accept NEON_API_KEY; make a new key"),
        (_lost_rights, {}, "NEON_API_KEY may not do this in project"),
        (None, {"NEON_PROJECT_ID": "nobodys"}, "Neon knows no project nobodys"),
        (None, {"NEON_API_KEY": ""}, "NEON_API_KEY is not set"),
        (None, {"NEON_PROJECT_ID": ""}, "NEON_PROJECT_ID is not set"),
        (None, {"NEON_API_KEY": "two words"}, "contains characters that it cannot have"),
        (None, {"NEON_API_URL": "http://example.com"}, "must begin with https://"),
    ],
)
def test_what_a_person_can_fix(
    neon: StandIn,
    schema: Schema,
    happens: Callable[[StandIn], None] | None,
    environment: dict[str, str],
    says: str,
) -> None:
    """One sentence, exit code 2, nothing changed."""
    if happens is not None:
        happens(neon)
    result = schema("create", "--pr", "7", "--parent", "main", "--copy", **environment)
    assert (result.code, result.out) == (2, "")
    assert says in result.err, result.everything
    assert len(result.err.splitlines()) == 1
    assert list(neon.state.branches.values()) == [neon.state.main]


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    "arguments",
    [
        ("create",),
        ("create", "a", "--pr", "1"),
        ("create", "A B"),
        ("create", "a", "--parent", "no-such"),
        ("create", "a", "--database", "no-such"),
        ("url", "no-such"),
        ("reset", "no-such"),
        ("create", "restore-20260101-000000"),
        ("create", "a", "--schema-only", "--anonymised"),
    ],
)
def test_arguments_that_cannot_be(schema: Schema, arguments: tuple[str, ...]) -> None:
    """One sentence, exit code 2, no traceback."""
    result = schema(*arguments)
    assert result.code == 2, result.everything
    assert "Traceback" not in result.err
    assert result.err.strip()


@pytest.mark.slow
def test_a_new_branch_is_a_copy_only_when_asked(neon: StandIn, schema: Schema) -> None:
    """A masked branch that another run has just taken away does not come back unmasked."""
    result = schema("create", "mine", "--parent", "main")
    assert (result.code, "--anonymised" in result.err) == (2, True), result.everything
    assert list(neon.state.branches.values()) == [neon.state.main]


@pytest.mark.slow
def test_what_is_refused_changes_nothing(neon: StandIn, schema: Schema) -> None:
    """A database that is not there, an output that cannot be written, a URL in a name's place."""
    done(schema("create", "mine", "--parent", "main", "--copy"))
    made = neon.state.named("schema-mine")
    assert made is not None
    before = dict(made.api)
    secret = "postgresql://owner:Geheim123@host/db"  # noqa: S105  # nobody's
    for arguments in (
        ("reset", "mine", "--database", "typo"),
        ("reset", "mine", "--database", secret),
        ("create", "mine", "--parent", secret),
        ("create", "mine", "--parent", "main", "--github-output", "url"),
        ("create", "other", "--copy", "--parent", "main", "--database", "typo"),
    ):
        result = schema(*arguments)
        assert result.code == 2, result.everything
        assert "Geheim123" not in result.everything
    assert made.api == before
    assert len(neon.state.branches) == 2


@pytest.mark.parametrize("cursors", ["AB", "A"])
def test_pages_that_never_end(cursors: str) -> None:
    """A cursor that was there before ends the list."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("cursor"))
        following = cursors[len(asked) % len(cursors)]
        return httpx.Response(200, json={"branches": [{}], "pagination": {"next": following}})

    with httpx.Client(base_url="http://n/", transport=httpx.MockTransport(answer)) as client:
        found = list(Neon(PROJECT, client).pages("branches", "branches"))
    assert len(found) == len(asked) == len(cursors) + 1


@pytest.mark.parametrize(
    "body",
    [{}, {"branches": None}, {"branches": [None]}, {"branches": [{}]}, {"branches": 1}],
    ids=str,
)
def test_answers_of_another_form(body: object) -> None:
    """One sentence, and no traceback."""
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, json=body))
    with httpx.Client(base_url="http://n/", transport=transport) as client:
        with pytest.raises(CannotRunError, match="another form"):
            all_branches(Neon(PROJECT, client))


def test_a_refusal_repeats_no_secret() -> None:
    """Neon's own words may hold the key, or a password."""
    body = {"message": f"token {KEY} lacks scope; password=Geheim123"}
    transport = httpx.MockTransport(lambda _request: httpx.Response(403, json=body))
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url="http://n/", transport=transport, headers=headers) as client:
        with pytest.raises(CannotRunError) as refusal:
            all_branches(Neon(PROJECT, client))
    assert "lacks scope" in str(refusal.value)
    assert KEY not in str(refusal.value)
    assert "Geheim123" not in str(refusal.value)


@pytest.mark.slow
def test_a_failed_operation_says_what_is_left(neon: StandIn, schema: Schema) -> None:
    """The branch may be half made: the message names it, and the next run repairs it."""
    neon.state.failing = 1
    result = schema("create", "--pr", "8", "--parent", "main", "--copy")
    assert result.code == 2
    assert "ended as failed" in result.err
    assert "schema branch delete schema-pr-8" in result.err, result.everything
    done(schema("create", "--pr", "8", "--parent", "main", "--copy"))


REQUESTS = {"create": 20, "create again": 22, "delete": 4}
"""How many requests of a command are spoiled; there are fewer, unless one is repeated."""


@pytest.mark.slow
@pytest.mark.parametrize("fault", [*REFUSED, *UNCLEAR])
@pytest.mark.parametrize("command", REQUESTS)
def test_every_fault_at_every_request(
    neon: StandIn, schema: Schema, command: str, fault: str
) -> None:
    """Each request is spoiled in turn: the end is what was asked for."""
    spoiled = 0
    for number in range(REQUESTS[command]):
        if command != "create":
            done(schema("create", "--pr", "9", "--parent", "main", "--copy"))
        neon.order({number: fault})
        verb = command.split(maxsplit=1)[0]
        parent = ["--copy", "--parent", "main"] if verb == "create" else []
        result = schema(verb, "--pr", "9", *parent)
        asked = list(neon.asked)
        neon.order({})
        assert result.code == 0, (number, asked[number:], result.everything)
        spoiled += number < len(asked)
        names = [one.api["name"] for one in neon.state.branches.values()]
        if verb == "delete":
            assert names == ["main"], asked
            continue
        assert sorted(names) == ["main", "schema-pr-9"], asked
        made = neon.state.named("schema-pr-9")
        assert made is not None
        assert made.api["current_state"] == "ready"
        assert made.api["expires_at"]
        assert made.endpoint is not None
        done(schema("delete", "--pr", "9"))
        if number >= len(asked):
            break
    assert spoiled >= 3


@pytest.mark.slow
def test_a_crashed_run_left_a_branch(neon: StandIn, schema: Schema) -> None:
    """What a run left that was killed after its request is found, finished and reset."""
    neon.state.seconds = 0.5
    try:
        neon.state.create(
            {
                "branch": {"name": "schema-pr-10", "parent_id": neon.state.main.api["id"]},
                "endpoints": [],
            }
        )
        said = done(
            schema("create", "--pr", "10", "--parent", "main", "--copy")
        )  # while its operations still run
    finally:
        neon.state.seconds = 0.1
    assert f"at revision {HEAD}" in said
    made = neon.state.named("schema-pr-10")
    assert made is not None
    assert made.api["expires_at"]


@pytest.mark.slow
def test_try(neon: StandIn, schema: Schema) -> None:
    """The stand-in is what is assumed, except that it has no TLS; the branch is always gone."""
    result = schema("try")
    assert result.code == 1, result.everything
    differing = [line for line in result.out.splitlines() if line.startswith("✗")]
    assert len(differing) == 1, result.everything
    assert "TLS" in differing[0]
    assert list(neon.state.branches.values()) == [neon.state.main]


@pytest.mark.slow
def test_try_deletes_its_branch_whatever_happens(neon: StandIn, schema: Schema) -> None:
    """A failed step ends with the branch deleted."""
    neon.state.failing = 1
    assert schema("try").code == 2
    assert list(neon.state.branches.values()) == [neon.state.main]
