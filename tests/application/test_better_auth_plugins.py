"""`schema better-auth` with the real package: what plugins need, and models that give it to them.

The theory: what the command adds to the models is enough for the plugins to work, tried over HTTP.
"""

import base64
import hashlib
import hmac
import json
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlparse

import httpx
import jwt
import pytest
from sqlalchemy import URL

from schema.postgres.logins import temporary_login
from schema.postgres.scratch import Server
from schema.roles import BETTER_AUTH
from tests.application.better_auth.applications import CONFIG, application, lint_models
from tests.application.better_auth.service import PASSWORD, Driver, Service
from tests.support.repo_copy import CHECK, Checkout, Launcher, Result

ORGANIZATION = "organization({ teams: { enabled: true } })"
PLUGINS = {
    "organization": [ORGANIZATION],
    "two-factor": ["twoFactor()"],
    "jwt": ["jwt()"],
    "all": [ORGANIZATION, "twoFactor()", "jwt()"],
}

BUILD = """
import sys
from sqlalchemy import make_url
from schema.better_auth import examination
examination.build(make_url(sys.argv[1]))
"""

LOOK = """
import json, sys
from sqlalchemy import make_url
from schema.branch import masking
from schema.checks import comments, ownership
url = make_url(sys.argv[1])
failures = [one for check in (comments, ownership) for one in check.check(url).failures]
assert failures == [], failures
print(json.dumps([[one["table_name"], one["column_name"]] for one in masking.rules("x")]))
"""
"""What `schema check` asks of a database: comments, indexes of foreign keys, privileges; then print
what an anonymised branch masks."""

NEEDS = {
    "organization": {
        *("organization", "member", "invitation", "team", "teamMember"),
        *("session.activeOrganizationId", "session.activeTeamId"),
    },
    "two-factor": {"twoFactor", "user.twoFactorEnabled"},
    "jwt": {"jwks"},
}
NEEDS["all"] = NEEDS["organization"] | NEEDS["two-factor"] | NEEDS["jwt"]

pytestmark = pytest.mark.usefixtures("installed")


@dataclass(frozen=True)
class Command:
    """`schema better-auth` in a copy of the repository, on the shared server."""

    run: Launcher
    copy: Checkout
    server: Server

    def __call__(self, config: Path, *options: str) -> Result:
        """Run it."""
        url = self.server.maintenance.render_as_string(hide_password=False)
        arguments = ("better-auth", "--config", str(config), "--database-url", url, *options)
        return self.run.run(self.copy.root, *arguments)

    def migrate(self) -> None:
        """Write the revisions that the models need; every check passes then."""
        url = self.server.maintenance.render_as_string(hide_password=False)
        message = ("-m", "Add what Better Auth's plugins need")
        for arguments in (("revision", *message), CHECK):
            done = self.run.run(self.copy.root, *arguments, "--database-url", url)
            assert done.code == 0, done.everything

    @contextmanager
    def database(self) -> Iterator[tuple[URL, set[tuple[str, str]]]]:
        """Build a database; yield its URL as Better Auth's login, and the columns that are masked.

        The database passes the checks of `schema check`.
        """
        with self.server.database() as head:
            url = head.render_as_string(hide_password=False)
            done = self.run.run(self.copy.root, url, code=BUILD)
            assert done.code == 0, done.everything
            checked = self.run.run(self.copy.root, url, code=LOOK)
            assert checked.code == 0, checked.everything
            masked = {(table, column) for table, column in json.loads(checked.out)}
            with temporary_login(head, "plugins", BETTER_AUTH) as login:
                yield login, masked


@pytest.fixture
def command(run: Launcher, copy: Checkout, server: Server) -> Command:
    """The command in a copy."""
    return Command(run, copy, server)


@pytest.mark.slow
@pytest.mark.parametrize("which", PLUGINS)
def test_what_plugins_need_is_added_and_works(
    command: Command, process: Driver, tmp_path: Path, which: str
) -> None:
    """The command names what is missing, adds it, finds no difference, and the plugins work."""
    config = application(tmp_path / "application", CONFIG.format(plugins=", ".join(PLUGINS[which])))
    found = command(config, "--json")
    assert found.code == 1, found.everything
    assert {needed(one) for one in json.loads(found.out)["differences"]} == NEEDS[which]
    before = texts(command.copy)

    done = command(config, "--write")
    assert done.code == 0, done.everything
    after = texts(command.copy)
    for name, text in before.items():
        assert lines(text) <= lines(after[name]), f"{name} lost a line"
    lint_models(command.copy, types=which == "all")
    command.migrate()
    after = texts(command.copy)  # with the new head

    again = command(config, "--json")
    assert again.code == 0, again.everything
    assert json.loads(again.out)["differences"] == []
    assert command(config, "--write").code == 0
    assert texts(command.copy) == after

    with command.database() as (database, masked):
        service = Service(process, database, config=config)
        try:
            assert service.migrations() == {}
            kept = service.kept_from_clients()
            assert {one for one in kept if one[1] != "userId"} <= masked
            live(service, which)
        finally:
            service.close()


def needed(difference: dict[str, Any]) -> str:
    """Return the table or column that is missing."""
    assert difference["kind"] in {"missing-table", "missing-column"}, difference
    return ".".join(filter(None, (difference["table"], difference["column"])))


def texts(copy: Checkout) -> dict[str, str]:
    """Return the text of each module of the models."""
    return {
        path.name: path.read_text(encoding="utf-8") for path in (copy.root / "models").glob("*.py")
    }


def lines(text: str) -> set[str]:
    """Return the lines that an addition must keep: imports may share one."""
    return {one for one in text.splitlines() if not one.startswith("from ")}


# Over HTTP.


class Visitor(httpx.Client):
    """A browser of a user."""

    ORIGIN: ClassVar[str] = "http://localhost:3000"

    def __init__(self, address: str) -> None:
        """Start without cookies."""
        super().__init__(base_url=f"{address}/api/auth", headers={"origin": self.ORIGIN})

    def ask(self, path: str, **query: str) -> Any:  # noqa: ANN401  # any JSON
        """Send a GET request, which must succeed."""
        return self._body(self.get(path, params=query))

    def tell(self, path: str, **body: object) -> Any:  # noqa: ANN401  # any JSON
        """Send a POST request, which must succeed."""
        return self._body(self.post(path, json=body))

    def sign_up(self, email: str) -> dict[str, Any]:
        """Sign up, and return the user."""
        user: dict[str, Any] = self.tell(
            "/sign-up/email", name=email, email=email, password=PASSWORD
        )["user"]
        return user

    def _body(self, response: httpx.Response) -> Any:  # noqa: ANN401  # any JSON
        assert response.status_code == 200, f"{response.url} {response.text}"
        return response.json()


def live(service: Service, which: str) -> None:
    """Use the plugins as their users do, and then delete a user who has used them all."""
    address = service.listen()
    with Visitor(address) as alice, Visitor(address) as bob:
        user = alice.sign_up("alice@example.com")
        bob.sign_up("bob@example.com")
        if which in {"two-factor", "all"}:
            use_two_factors(alice)
        if which in {"organization", "all"}:
            use_organizations(alice, bob)
        if which in {"jwt", "all"}:
            use_tokens(alice, address, user["id"])
        assert alice.tell("/delete-user", password=PASSWORD)["success"]
        assert alice.ask("/get-session") is None
        assert bob.ask("/get-session")["user"]["email"] == "bob@example.com"


def use_two_factors(browser: Visitor) -> None:
    """Enable the second factor, and sign in with a code."""
    enabled = browser.tell("/two-factor/enable", password=PASSWORD)
    (secret,) = parse_qs(urlparse(enabled["totpURI"]).query)["secret"]
    browser.tell("/two-factor/verify-totp", code=one_time_code(secret))
    assert browser.ask("/get-session")["user"]["twoFactorEnabled"]
    browser.tell("/sign-out")
    browser.cookies.clear()
    answer = browser.tell("/sign-in/email", email="alice@example.com", password=PASSWORD)
    assert answer["twoFactorRedirect"]
    assert browser.ask("/get-session") is None
    wrong = browser.post("/two-factor/verify-totp", json={"code": "000000"})
    assert wrong.status_code == 401, wrong.text
    browser.tell("/two-factor/verify-totp", code=one_time_code(secret))
    assert browser.ask("/get-session")["user"]["email"] == "alice@example.com"


def one_time_code(secret: str) -> str:
    """Return the code of this moment for a secret in base32 (RFC 6238)."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    digest = hmac.digest(key, struct.pack(">Q", int(time.time()) // 30), hashlib.sha1)
    (number,) = struct.unpack_from(">I", digest, digest[-1] & 15)
    return f"{(number & 0x7FFFFFFF) % 10**6:06}"


def use_organizations(owner: Visitor, guest: Visitor) -> None:
    """Make an organization and a team, invite a guest into it, and let the guest accept."""
    made = owner.tell("/organization/create", name="Acme", slug="acme")
    team = owner.tell("/organization/create-team", name="Sales", organizationId=made["id"])
    invitation = owner.tell(
        "/organization/invite-member",
        email="bob@example.com",
        role="member",
        organizationId=made["id"],
        teamId=team["id"],
    )
    assert invitation["status"] == "pending"
    guest.tell("/organization/accept-invitation", invitationId=invitation["id"])
    full = owner.ask("/organization/get-full-organization", organizationId=made["id"])
    assert [member["role"] for member in full["members"]] == ["owner", "member"]
    assert {one["name"] for one in full["teams"]} == {"Acme", "Sales"}
    guest.tell("/organization/set-active-team", teamId=team["id"])
    (mine,) = guest.ask("/organization/list-team-members", teamId=team["id"])
    assert mine["userId"] == guest.ask("/get-session")["user"]["id"]
    assert guest.ask("/get-session")["session"]["activeTeamId"] == team["id"]


def use_tokens(browser: Visitor, address: str, user: str) -> None:
    """Take a token, and verify it with the published key."""
    token = browser.ask("/token")["token"]
    key = jwt.PyJWKClient(f"{address}/api/auth/jwks").get_signing_key_from_jwt(token)
    claims = jwt.decode(
        token, key, algorithms=["EdDSA"], issuer=Visitor.ORIGIN, audience=Visitor.ORIGIN
    )
    assert claims["sub"] == user
