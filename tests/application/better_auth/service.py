"""The real Better Auth for tests: installed once from a lock, run by Node (driver.js)."""

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
"""The lists in the result of Better Auth's `getMigrations`."""


JWKS = [
    """CREATE TABLE jwks (
        id uuid DEFAULT gen_random_uuid() PRIMARY KEY, "publicKey" text NOT NULL,
        "privateKey" text NOT NULL, "createdAt" timestamptz NOT NULL, "expiresAt" timestamptz,
        alg text, crv text
    )""",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON jwks TO todo_auth",
]
"""The jwt plugin's table, as Better Auth's own migration makes it."""


class Answer(NamedTuple):
    """Better Auth's response."""

    status: int
    body: Any


class Mail(NamedTuple):
    """A mail of Better Auth: its kind (verify, confirm or reset), and the secret in its link."""

    kind: str
    to: str
    token: str


class Statement(NamedTuple):
    """A statement that Better Auth sent to the database."""

    sql: str
    parameters: list[Any]


class Outcome(NamedTuple):
    """The result of a call: a value, or PostgreSQL's error code."""

    value: Any
    code: str | None


def install_better_auth(folder: Path = FOLDER) -> Path:
    """Install Better Auth, and return the path of the driver."""
    driver = folder / "driver.js"
    install(SOURCE, folder)
    if not driver.exists() or driver.read_bytes() != (SOURCE / driver.name).read_bytes():
        # Atomically: another run may start Node with it now.
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
    """Run Node in that time zone, without the developer's settings."""
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
        process.kill()  # also if it has ended
        process.wait()


class Service:
    """Better Auth on one database."""

    def __init__(
        self,
        driver: Driver,
        url: URL,
        *,
        plugins: Sequence[str] = (),
        config: Path | None = None,
        **settings: str,
    ) -> None:
        """Start it with that URL, and with those PostgreSQL settings on each connection.

        The plugins are named, or those of a configuration.
        """
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
        path = config and str(config)
        driver.ask("open", connection=connection, plugins=list(plugins), config=path)

    def close(self) -> None:
        """Disconnect from the database."""
        self._driver.ask("close")

    def listen(self) -> str:
        """Serve it over HTTP, and return its address."""
        return f"http://127.0.0.1:{self._driver.ask('listen')}"

    def migrations(self) -> dict[str, Any]:
        """Return the lists of changes in Better Auth's own migration that are not empty."""
        plan: dict[str, list[Any]] = self._driver.ask("migrations")
        assert plan.keys() == PLAN, "this version of Better Auth returns other lists"
        return {kind: findings for kind, findings in plan.items() if findings}

    def kept_from_clients(self) -> set[tuple[str, str]]:
        """Return the table and name of each text column that it never returns to a client."""
        return {(table, column) for table, column in self._driver.ask("kept")}

    def send(self, *requests: dict[str, Any]) -> list[dict[str, Any]]:
        """Send HTTP requests at the same time."""
        answers: list[dict[str, Any]] = self._driver.ask("send", requests=requests)
        return answers

    def call(self, name: str, *calls: Sequence[object]) -> list[Outcome]:
        """Call a method of Better Auth's internal adapter with each list of arguments."""
        return [
            Outcome(outcome.get("value"), outcome.get("error", {}).get("code", "no code"))
            if "error" in outcome
            else Outcome(outcome.get("value"), None)
            for outcome in self._driver.ask("call", name=name, calls=calls)
        ]

    def printed(self) -> list[str]:
        """Return the output of Better Auth since the last call."""
        self._take()
        return _empty(self._printed)

    def mail(self, kind: str) -> Mail:
        """Return the only mail since the last call."""
        self._take()
        (mail,) = _empty(self._mails)
        assert mail.kind == kind
        return mail

    def mails(self) -> list[Mail]:
        """Return the mails since the last call."""
        self._take()
        return _empty(self._mails)

    def statements(self) -> list[Statement]:
        """Return Better Auth's SQL statements since the last call."""
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
    """A user's browser, with cookies, an IP address and a user agent."""

    ADDRESS = "203.0.113.7"
    NAME = "a browser"

    def __init__(self, service: Service) -> None:
        """Start without cookies."""
        self._service = service
        self.cookies: dict[str, str] = {}

    def get(self, path: str, **query: str) -> Answer:
        """Send a GET request."""
        return self._send({"method": "GET", "path": f"{path}?{urlencode(query)}"})

    def post(self, path: str, **body: object) -> Answer:
        """Send a POST request."""
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
    """Sign up in a new browser, and return the browser."""
    browser = Browser(service)
    answer = browser.post("/sign-up/email", name=email, email=email, password=password)
    assert answer.status == 200, answer.body
    return browser
