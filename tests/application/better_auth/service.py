"""The real Better Auth for tests: installed once from the lock, run by Node, asked over HTTP.

`driver.js` holds what runs in Node; everything that a test says and expects stays in Python.
"""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import urlencode

from sqlalchemy import URL

from schema.project import ROOT
from tests.support.npm import install

SOURCE = Path(__file__).parent
FOLDER = ROOT / ".venv" / "better-auth"
PASSWORD = "correct horse battery staple"  # noqa: S105  # it opens nothing

PLAN = {"toBeCreated", "toBeAdded", "toBeAddedIndexes", "unsafeChanges", "schemaProblems"}
"""The lists in what Better Auth's `getMigrations` returns."""


class Answer(NamedTuple):
    """What Better Auth answers to a request."""

    status: int
    body: Any


class Mail(NamedTuple):
    """What Better Auth would have sent: verify, confirm or reset, and the secret in its link."""

    kind: str
    to: str
    token: str


class Statement(NamedTuple):
    """A statement that Better Auth sent to the database."""

    sql: str
    parameters: list[Any]


class Outcome(NamedTuple):
    """How one of several calls ended: the value, or PostgreSQL's code of the error."""

    value: Any
    code: str | None


def install_better_auth(folder: Path = FOLDER) -> Path:
    """Install Better Auth, and return the driver beside it."""
    driver = folder / "driver.js"
    install(SOURCE, folder)
    if not driver.exists() or driver.read_bytes() != (SOURCE / driver.name).read_bytes():
        # In one step: another run may start Node on it at this moment.
        making = folder / f"driver.{secrets.token_hex(4)}"
        shutil.copyfile(SOURCE / driver.name, making)
        making.replace(driver)
    return driver


class Driver:
    """A Node process that runs Better Auth, on one database at a time."""

    def __init__(self, to: IO[str], answers: IO[str]) -> None:
        """Talk to the process through its standard streams."""
        self._to = to
        self._answers = answers

    def ask(self, command: str, **parameters: object) -> Any:  # noqa: ANN401  # any JSON
        """Run one of the driver's commands."""
        self._to.write(json.dumps({"command": command, **parameters}) + "\n")
        self._to.flush()
        line = self._answers.readline()
        assert line, "Node has ended; its complaint is on standard error"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer.get("value")


@contextmanager
def driver(node: str, script: Path, zone: str = "UTC") -> Iterator[Driver]:
    """Start Node, in that time zone and with no settings of the developer's, and end it."""
    process = subprocess.Popen(
        [node, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "TZ": zone},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdin as to, process.stdout as answers:
            yield Driver(to, answers)
            to.close()
            answers.read()
    finally:
        process.kill()  # no harm where it has ended
        process.wait()


class Service:
    """Better Auth on one database."""

    def __init__(self, driver: Driver, url: URL, **settings: str) -> None:
        """Start it, with that role and those settings of PostgreSQL's on each connection."""
        self._driver = driver
        connection = {
            "host": url.host or url.query.get("host"),
            "port": url.port or 5432,
            "user": url.username,
            "password": url.password,
            "database": url.database,
            "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        }
        self._mails: list[Mail] = []
        self._printed: list[str] = []
        self._statements: list[Statement] = []
        driver.ask("open", connection=connection)

    def close(self) -> None:
        """Disconnect from the database."""
        self._driver.ask("close")

    def listen(self) -> str:
        """Serve it over HTTP as well, and return its address."""
        return f"http://127.0.0.1:{self._driver.ask('listen')}"

    def migrations(self) -> dict[str, Any]:
        """Ask what Better Auth's own migration would do; the lists that are not empty."""
        plan: dict[str, list[Any]] = self._driver.ask("migrations")
        assert plan.keys() == PLAN, "this version of Better Auth tells other things"
        return {kind: findings for kind, findings in plan.items() if findings}

    def send(self, *requests: dict[str, Any]) -> list[dict[str, Any]]:
        """Send HTTP requests, all at once."""
        answers: list[dict[str, Any]] = self._driver.ask("send", requests=requests)
        return answers

    def call(self, name: str, *calls: Sequence[object]) -> list[Outcome]:
        """Call a method of Better Auth's internal adapter, once for each list of arguments."""
        return [
            Outcome(outcome.get("value"), outcome.get("error", {}).get("code", "no code"))
            if "error" in outcome
            else Outcome(outcome.get("value"), None)
            for outcome in self._driver.ask("call", name=name, calls=calls)
        ]

    def printed(self) -> list[str]:
        """What Better Auth printed since this was asked last."""
        self._take()
        return _empty(self._printed)

    def mail(self, kind: str) -> Mail:
        """The one mail that Better Auth sent since mails were asked for last."""
        self._take()
        (mail,) = _empty(self._mails)
        assert mail.kind == kind
        return mail

    def mails(self) -> list[Mail]:
        """The mails that Better Auth sent since they were asked for last."""
        self._take()
        return _empty(self._mails)

    def statements(self) -> list[Statement]:
        """What Better Auth asked of the database since this was asked last."""
        self._take()
        return _empty(self._statements)

    def _take(self) -> None:
        seen = self._driver.ask("take")
        self._printed += seen["printed"]
        self._mails += [Mail(one["kind"], one["to"], one["token"]) for one in seen["mails"]]
        self._statements += [Statement(one["sql"], one["parameters"]) for one in seen["statements"]]


def _empty[Item](items: list[Item]) -> list[Item]:
    taken = items.copy()
    items.clear()
    return taken


class Browser:
    """Somebody's browser: it keeps cookies, and has an address and a name."""

    ADDRESS = "203.0.113.7"
    NAME = "a browser"

    def __init__(self, service: Service) -> None:
        """Open it, without a cookie."""
        self._service = service
        self.cookies: dict[str, str] = {}

    def get(self, path: str, **query: str) -> Answer:
        """Follow a link."""
        return self._send({"method": "GET", "path": f"{path}?{urlencode(query)}"})

    def post(self, path: str, **body: object) -> Answer:
        """Submit a form."""
        return self._send({"method": "POST", "path": path, "body": body})

    def _send(self, request: dict[str, Any]) -> Answer:
        headers = {"x-forwarded-for": self.ADDRESS, "user-agent": self.NAME}
        if self.cookies:
            pairs = (f"{name}={value}" for name, value in self.cookies.items())
            headers["cookie"] = "; ".join(pairs)
        (answer,) = self._service.send(request | {"headers": headers})
        for cookie in answer["cookies"]:
            pair, _, attributes = cookie.partition(";")
            name, _, value = pair.partition("=")
            if "max-age=0" in attributes.lower():
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return Answer(answer["status"], answer["body"])


def sign_up(service: Service, email: str, password: str = PASSWORD) -> Browser:
    """Sign up in a browser of its own, which is then signed in."""
    browser = Browser(service)
    answer = browser.post("/sign-up/email", name=email, email=email, password=password)
    assert answer.status == 200, answer.body
    return browser
