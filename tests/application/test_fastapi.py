"""The FastAPI recipe of models/README.md, attacked over HTTP.

The theory: a request acts only for the user of a session that Better Auth has verified, and an
answer of success means that the data is committed. The test runs the page's code with the wheel,
the real Better Auth and the application's login.
"""

import base64
import json
import secrets
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import URL, text
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from schema.postgres.connection import connect
from tests.application.better_auth.service import JWKS, Browser, Driver, Service, sign_up
from tests.application.test_wheel import snippets

ORIGIN = "https://todo.example"
COOKIE = "better-auth.session_token"

ISSUER = "http://localhost:3000"
"""Better Auth's `baseURL` in driver.js."""

PRELUDE = f"""
import os
DATABASE_URL, AUTH_URL = os.environ["URL"], os.environ["AUTH_URL"]
ORIGIN, ISSUER = "{ORIGIN}", os.environ["ISSUER"]
"""

BOTH = pytest.mark.parametrize(
    "prefix", ["", pytest.param("/async", marks=pytest.mark.slow)], ids=["sync", "async"]
)
"""For a test of both forms of the recipe."""


@dataclass(frozen=True)
class Person:
    """A signed-in user, and one of their todos."""

    browser: Browser
    id: str
    todo: str
    title: str

    @property
    def cookie(self) -> str:
        """The Cookie header."""
        return "; ".join(f"{name}={value}" for name, value in self.browser.cookies.items())

    @property
    def token(self) -> str:
        """The session's token with its signature, from the cookie."""
        return self.browser.cookies[COOKIE]


@contextmanager
def served(
    python: Path, folder: Path, environment: dict[str, str], prefix: str
) -> Iterator[httpx.Client]:
    """Serve the recipe, and open a client without cookies for the paths below the prefix."""
    parts = [PRELUDE, snippets("The application")[0], *snippets("With FastAPI")]
    (folder / "recipe.py").write_text("".join(parts), encoding="utf-8")
    address = folder / "socket"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [python, "-m", "uvicorn", "recipe:app", "--uds", address],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
    # The server may close a connection after an error.
    transport = httpx.HTTPTransport(
        uds=str(address), limits=httpx.Limits(max_keepalive_connections=0)
    )
    base = f"http://todo.example{prefix}"
    with httpx.Client(transport=transport, base_url=base, timeout=30) as client:

        @retry(
            retry=retry_if_exception_type(OSError),
            stop=stop_after_delay(30),
            wait=wait_fixed(0.02),
        )
        def ready() -> None:
            assert process.poll() is None, (folder / "log").read_text()
            with socket.socket(socket.AF_UNIX) as opened:
                opened.connect(str(address))

        try:
            ready()
            yield client
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
def prefix() -> str:
    """Where the recipe's paths begin; a test that is marked with BOTH says another."""
    return ""


type Serve = Callable[[str, str, str], AbstractContextManager[httpx.Client]]
"""Serve the recipe beside a Better Auth: its address, the paths' prefix, and its issuer."""


@pytest.fixture
def serve(python: Path, application: URL, tmp_path: Path) -> Serve:
    """Serve the recipe as the application's login."""

    def opened(auth: str, prefix: str, issuer: str) -> AbstractContextManager[httpx.Client]:
        environment = {
            "URL": application.render_as_string(hide_password=False),
            "AUTH_URL": auth,
            "ISSUER": issuer,
        }
        folder = tmp_path / secrets.token_hex(4)
        folder.mkdir()
        return served(python, folder, environment, prefix)

    return opened


@pytest.fixture
def app(serve: Serve, service: Service, prefix: str) -> Iterator[httpx.Client]:
    """The application, with a running Better Auth."""
    with serve(service.listen(), prefix, ISSUER) as client:
        yield client


def person(service: Service, app: httpx.Client, name: str) -> Person:
    """Sign up, and add a todo."""
    browser = sign_up(service, f"{name}@example.com")
    header = {"cookie": "; ".join(f"{key}={value}" for key, value in browser.cookies.items())}
    title = f"{name}'s own"
    made = app.post("/todos", json={"title": title}, headers=header)
    assert made.status_code == 201, made.text
    return Person(browser, made.json()["user_id"], made.json()["id"], title)


@pytest.fixture
def alice(service: Service, app: httpx.Client) -> Person:
    """The attacker, who has an account too."""
    return person(service, app, "alice")


@pytest.fixture
def bob(service: Service, app: httpx.Client) -> Person:
    """The victim."""
    return person(service, app, "bob")


def titles(answer: httpx.Response) -> list[str]:
    """Return the titles in an answer."""
    assert answer.status_code == 200, answer.text
    return [todo["title"] for todo in answer.json()]


def everything(owner: URL) -> list[tuple[str, str]]:
    """Return the user and the title of every todo in the database."""
    with connect(owner) as connection:
        return [(str(user), title) for user, title in connection.execute(
            text("SELECT user_id, title FROM todo ORDER BY 1, 2"))]  # fmt: skip  # one query


@BOTH
def test_a_user_reads_and_writes_their_own(
    app: httpx.Client, alice: Person, bob: Person, head: URL
) -> None:
    """A user can write and read their own todos, and the answer has the stored row."""
    for who, other in ((alice, bob), (bob, alice)):
        own = {"cookie": who.cookie}
        assert titles(app.get("/todos", headers=own)) == [who.title]
        assert app.get(f"/todos/{who.todo}", headers=own).json()["title"] == who.title
        assert app.get(f"/todos/{other.todo}", headers=own).status_code == 404
    assert everything(head) == sorted([(alice.id, alice.title), (bob.id, bob.title)])


@pytest.mark.slow
def test_nobody_chooses_who_they_are(app: httpx.Client, alice: Person, bob: Person) -> None:
    """The victim's id in the query, in headers and in the body has no effect."""
    names = dict.fromkeys(("user_id", "user", "userId", "id", "sub"), bob.id)
    headers = {f"x-{name.replace('_', '-')}": bob.id for name in names} | {
        "x-forwarded-user": bob.id,
        "authorization": f"Bearer {bob.token}",
    }
    assert app.get("/todos", params=names, headers=headers).status_code == 401
    mine = headers | {"cookie": alice.cookie}
    assert titles(app.get("/todos", params=names, headers=mine)) == [alice.title]
    for name in names:
        body = {"title": "forged", name: bob.id}
        assert app.post("/todos", json=body, headers=mine).status_code == 422
        assert app.post("/todos", json=body, params=names, headers=headers).status_code == 401
    spec = app.get("/openapi.json").text
    assert '"name":"user_id"' not in spec.replace(" ", ""), "the identity is a parameter"


def forgeries(alice: Person, bob: Person) -> dict[str, str]:
    """Return forged cookies for Bob."""
    token, _, signature = bob.token.partition(".")
    own_signature = alice.token.partition(".")[2]
    return {
        "empty": f"{COOKIE}=",
        "unsigned": f"{COOKIE}={token}",
        "another signature": f"{COOKIE}={token}.{own_signature}",
        "cut": f"{COOKIE}={token}.{signature[:-8]}",
        "tampered": f"{COOKIE}={token[:-1]}{'A' if token[-1] != 'A' else 'B'}.{signature}",
        "the user's id": f"{COOKIE}={bob.id}",
        "another name": f"session={bob.token}; todo.session_token={bob.token}",
        "not a cookie": ";;;=;==",
        "not ASCII": f"{COOKIE}=\xff{bob.token}",
        "long": f"{COOKIE}={'x' * 20_000}",
    }


def test_a_forged_cookie_is_nobodys(
    app: httpx.Client, alice: Person, bob: Person, head: URL
) -> None:
    """A forged cookie is refused; with the attacker's own cookie it never acts for the victim."""
    before, refused = everything(head), {401, 503}  # Better Auth's own limit ends in 503
    for name, cookie in forgeries(alice, bob).items():
        forged = {b"cookie": cookie.encode("latin-1")}
        assert app.get("/todos", headers=forged).status_code in refused, name
        assert app.post("/todos", json={"title": "x"}, headers=forged).status_code in refused
        for both in (f"{alice.cookie}; {cookie}", f"{cookie}; {alice.cookie}"):
            answer = app.get("/todos", headers={b"cookie": both.encode("latin-1")})
            assert bob.title not in answer.text, name
    assert everything(head) == before


@pytest.mark.slow
def test_the_next_request_is_not_the_last_ones(
    app: httpx.Client, alice: Person, bob: Person, head: URL
) -> None:
    """The HTTP client for Better Auth is shared by all requests, and must store no cookie."""
    with connect(head) as connection:  # old enough for Better Auth to renew the cookie
        connection.execute(text("UPDATE session SET \"expiresAt\" = now() + interval '1 day'"))
        connection.commit()
    assert titles(app.get("/todos", headers={"cookie": bob.cookie})) == [bob.title]
    assert app.get("/todos").status_code == 401
    assert titles(app.get("/todos", headers={"cookie": alice.cookie})) == [alice.title]


ENDINGS: dict[str, str] = {
    "expired": "UPDATE session SET \"expiresAt\" = now() - interval '1 second'",
    "revoked": "DELETE FROM session",
    "deleted": 'DELETE FROM "user"',
}


@pytest.mark.parametrize(
    "ending",
    ["expired", *(pytest.param(one, marks=pytest.mark.slow) for one in ("revoked", "deleted"))],
)
def test_a_session_that_has_ended_signs_nobody_in(
    app: httpx.Client, alice: Person, head: URL, ending: str
) -> None:
    """An ended session is refused at once, without a cache."""
    own = {"cookie": alice.cookie}
    assert titles(app.get("/todos", headers=own)) == [alice.title]
    with connect(head, autocommit=True) as connection:
        connection.execute(text(ENDINGS[ending]))
    assert app.get("/todos", headers=own).status_code == 401
    assert app.post("/todos", json={"title": "late"}, headers=own).status_code == 401


@pytest.mark.slow
def test_a_sign_out_ends_it(app: httpx.Client, alice: Person) -> None:
    """A copied cookie is refused after sign-out."""
    copied = {"cookie": alice.cookie}
    assert alice.browser.post("/sign-out").status == 200
    assert app.get("/todos", headers=copied).status_code == 401


@pytest.mark.slow
def test_another_site_cannot_write_with_the_users_cookie(
    app: httpx.Client, alice: Person, head: URL
) -> None:
    """A write with another site's Origin header is refused."""
    before = everything(head)
    for origin in ("https://evil.example", "null", f"{ORIGIN}.evil.example", ""):
        sent = {"cookie": alice.cookie, "origin": origin}
        answer = app.post("/todos", json={"title": "forged"}, headers=sent)
        assert answer.status_code == 403, origin
    assert everything(head) == before
    own = {"cookie": alice.cookie, "origin": ORIGIN}
    assert app.post("/todos", json={"title": "own"}, headers=own).status_code == 201


def test_without_better_auth_nobody_is_signed_in(
    app: httpx.Client, alice: Person, service: Service
) -> None:
    """Without an answer of Better Auth every request is refused."""
    service.close()
    answer = app.get("/todos", headers={"cookie": alice.cookie})
    assert answer.status_code == 503
    assert alice.title not in answer.text


@pytest.mark.slow
@BOTH
def test_values_that_the_database_refuses_are_the_clients_error(
    app: httpx.Client, alice: Person, head: URL
) -> None:
    """The answer is 422, without the database's message, and nothing is stored."""
    before = everything(head)
    for title in (" ", "a\0b", "\ud800"):
        body = json.dumps({"title": title}).encode()
        kind = {"cookie": alice.cookie, "content-type": "application/json"}
        answer = app.post("/todos", content=body, headers=kind)
        assert answer.status_code == 422, title
        assert "todo" not in answer.text
    assert everything(head) == before


# Only at COMMIT, the database refuses the row or ends the connection.
AT_COMMIT = {
    "refused": "RAISE EXCEPTION 'refused' USING ERRCODE = 'check_violation';",
    "lost": "PERFORM pg_terminate_backend(pg_backend_pid());",
}


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("ending", AT_COMMIT)
def test_success_is_answered_after_commit(
    app: httpx.Client, alice: Person, head: URL, ending: str
) -> None:
    """If COMMIT fails, the answer is not 201."""
    before = everything(head)
    with connect(head, autocommit=True) as owner:
        owner.exec_driver_sql(
            "CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
            f" $$ BEGIN {AT_COMMIT[ending]} RETURN NULL; END $$"
        )
        owner.exec_driver_sql(
            "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON todo DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION at_commit()"
        )
    answer = app.post("/todos", json={"title": "told"}, headers={"cookie": alice.cookie})
    assert answer.status_code in {422, 500}
    assert everything(head) == before
    with connect(head, autocommit=True) as owner:
        owner.exec_driver_sql("DROP TRIGGER at_commit ON todo")
    again = app.post("/todos", json={"title": "again"}, headers={"cookie": alice.cookie})
    assert again.status_code == 201
    assert (alice.id, "again") in everything(head)


@pytest.mark.slow
def test_a_bearer_token_is_verified_by_better_auth(
    serve: Serve, process: Driver, better_auth: URL
) -> None:
    """The plugin's token names its user; a cookie, another's id or a changed token does not."""
    service = Service(process, better_auth, plugins=["bearer"])
    with serve(service.listen(), "", ISSUER) as app:
        alice, bob = (person(service, app, name) for name in ("alice", "bob"))
        for who in (alice, bob):
            told = app.get("/me", headers={"authorization": f"Bearer {who.token}"})
            assert (told.status_code, told.json()) == (200, who.id)
        session, _, signature = bob.token.partition(".")
        for sent in (
            {"cookie": bob.cookie},
            {"authorization": f"Bearer {bob.id}"},
            {"authorization": f"Bearer {session}.{alice.token.partition('.')[2]}"},
            {"authorization": f"Bearer {session[:-1]}.{signature}"},
            {"authorization": f"Basic {bob.token}"},
            {},
        ):
            assert app.get("/me", headers=sent).status_code == 401, sent
        copied = {"authorization": f"Bearer {bob.token}"}
        bob.browser.post("/sign-out")
        assert app.get("/me", headers=copied).status_code == 401
    service.close()


def forged_tokens(token: str, victim: str) -> dict[str, str]:
    """Return tokens that name the victim and that Better Auth has not signed."""
    header, payload, signature = token.split(".")
    claims = jwt.decode(token, options={"verify_signature": False})
    kid = jwt.get_unverified_header(token)["kid"]
    own = Ed25519PrivateKey.generate()
    public = own.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    changed = claims | {"sub": victim}

    def signed(key: Any, algorithm: str, kid: str = kid) -> str:  # noqa: ANN401  # any key
        return jwt.encode(changed, key, algorithm=algorithm, headers={"kid": kid})

    body = base64.urlsafe_b64encode(json.dumps(changed).encode()).rstrip(b"=").decode()
    return {
        "changed claims": f"{header}.{body}.{signature}",
        "no signature": f"{header}.{payload}.",
        "no algorithm": signed(None, "none"),
        "a secret": signed(public * 2, "HS256"),
        "another key": signed(own, "EdDSA"),
        "an unknown key": signed(own, "EdDSA", "another"),
        "the user's id": victim,
        "no token": "x",
        "not ASCII": "\xff.\xff.\xff",
    }


@pytest.mark.slow
def test_a_jwt_is_verified_by_the_application(
    serve: Serve, process: Driver, better_auth: URL, head: URL
) -> None:
    """A token of the jwt plugin names its user; a forged one, or another audience's, nobody."""
    with connect(head, autocommit=True) as owner:
        for statement in JWKS:
            owner.exec_driver_sql(statement)
    service = Service(process, better_auth, plugins=["jwt"])
    auth = service.listen()
    with serve(auth, "", ISSUER) as app:
        alice, bob = (person(service, app, name) for name in ("alice", "bob"))
        token = alice.browser.get("/token").body["token"]

        def ask(sent: str) -> httpx.Response:
            header = {b"authorization": f"Bearer {sent}".encode("latin-1")}
            return app.get("/signed/me", headers=header)

        assert (ask(token).status_code, ask(token).json()) == (200, alice.id)
        for name, forged in forged_tokens(token, bob.id).items():
            assert ask(forged).status_code == 401, name
        assert ask(token).json() == alice.id
    own = {"authorization": f"Bearer {token}"}
    with serve(auth, "", "http://other.example") as app:
        assert app.get("/signed/me", headers=own).status_code == 401
    with serve(auth, "", ISSUER) as app:
        service.close()
        assert app.get("/signed/me", headers=own).status_code == 503
