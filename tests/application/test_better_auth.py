"""The real Better Auth works on this schema.

Its own schema comparison is weak, because it compares names only. So each function of Better Auth
is used over HTTP, with the login of production, and the owner reads the stored rows.
"""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError

from schema.branch import masking
from schema.postgres.connection import connect
from tests.application.better_auth.service import (
    JWKS,
    PASSWORD,
    SOURCE,
    Browser,
    Driver,
    Service,
    Statement,
    driver,
    install_better_auth,
    sign_up,
)
from tests.support.npm import IN_CI, find_node

OTHER_PASSWORD = "an altogether different one"  # noqa: S105  # it opens nothing


@pytest.fixture
def browser(service: Service) -> Browser:
    """A browser without a cookie."""
    return Browser(service)


def sql(url: URL, statement: str) -> list[Any]:
    """Execute a statement as the owner and return the rows."""
    with connect(url, autocommit=True) as connection:
        result = connection.execute(text(statement))
        return list(result.all()) if result.returns_rows else []


def signed_in(browser: Browser) -> str | None:
    """Return the e-mail of the browser's user; None if it is signed out."""
    session = browser.get("/get-session").body
    return None if session is None else str(session["user"]["email"])


def can_sign_in(service: Service, email: str, password: str = PASSWORD) -> bool:
    """Whether a new browser can sign in."""
    status = Browser(service).post("/sign-in/email", email=email, password=password).status
    assert status in {200, 401}
    return status == 200


# Better Auth's own comparison of the schema.


def test_better_auths_own_migration_has_nothing_to_do(
    service: Service, browser: Browser, better_auth: URL
) -> None:
    """The migration is empty and prints no warning, as a login in `todo_auth` only."""
    assert service.migrations() == {}
    assert browser.get("/get-session").body is None  # checks the schema at start-up
    assert service.printed() == []
    (login,) = sql(
        better_auth,
        """
        SELECT array_agg(m.roleid::regrole::text), bool_or(r.rolsuper OR r.rolbypassrls)
        FROM pg_roles AS r JOIN pg_auth_members AS m ON m.member = r.oid
        WHERE r.rolname = current_user
        """,
    )
    assert tuple(login) == (["todo_auth"], False)


@pytest.mark.parametrize(
    ("change", "kind", "named"),
    [
        ("DROP TABLE verification", "toBeCreated", "verification"),
        ('ALTER TABLE "user" DROP COLUMN image', "toBeAdded", "image"),
        ('ALTER TABLE session RENAME "userId" TO user_id', "toBeAdded", "userId"),
        ("ALTER TABLE account ADD issuer text NOT NULL", "schemaProblems", "issuer"),
        ('ALTER TABLE "user" ALTER email DROP NOT NULL', "printed", "email"),
        ('ALTER TABLE session ALTER "expiresAt" TYPE text', "printed", "expiresAt"),
    ],
    ids=["table", "dropped", "renamed", "required", "nullable", "type"],
)
def test_better_auth_reports_missing_parts(
    service: Service, head: URL, change: str, kind: str, named: str
) -> None:
    """A wrong schema gives a migration that is not empty."""
    sql(head, change)
    found = service.migrations() | {"printed": service.printed()}
    assert named in json.dumps(found[kind])


@pytest.mark.parametrize(
    "change",
    [
        'DROP POLICY user_auth ON "user"',
        "DROP POLICY session_auth ON session",
        "REVOKE INSERT ON account FROM todo_auth",
        'ALTER TABLE "user" ALTER id DROP DEFAULT',
        'ALTER TABLE session ADD CHECK ("ipAddress" IS NULL)',
    ],
    ids=["user's policy", "session's policy", "grant", "default", "check"],
)
def test_a_sign_up_fails_where_better_auth_finds_nothing(
    service: Service, browser: Browser, head: URL, change: str
) -> None:
    """Some differences are not compared but break a sign-up, so the tests below are needed.

    The failed sign-up leaves no row, because it is one transaction.
    """
    sql(head, change)
    assert service.migrations() == {}
    answer = browser.post("/sign-up/email", name="A", email="a@example.com", password=PASSWORD)
    assert answer.status in {422, 500}
    left = 'SELECT FROM "user" UNION ALL SELECT FROM account UNION ALL SELECT FROM session'
    assert sql(head, left) == []


# Sign-up, sign-in and sign-out.


def test_a_sign_up_stores_what_the_schema_documents(service: Service, head: URL) -> None:
    """E-mails are in lower case, ids come from the database, and secrets are in their columns."""
    service.statements()
    browser = sign_up(service, "Alice.Doe@Example.COM")
    inserts = [one.sql for one in service.statements() if one.sql.startswith("insert")]
    assert len(inserts) == 3
    assert not any('"id"' in sql.partition(" values ")[0] for sql in inserts)

    (user,) = sql(head, 'SELECT * FROM "user"')
    (account,) = sql(head, "SELECT * FROM account")
    (session,) = sql(head, "SELECT * FROM session")
    assert {made.id.version for made in (user, account, session)} == {4}
    assert (user.email, user.emailVerified, user.image) == ("alice.doe@example.com", False, None)
    assert (account.userId, account.providerId) == (user.id, "credential")
    assert account.accountId == str(user.id)
    assert re.fullmatch(r"[0-9a-f]{32}:[0-9a-f]{128}", account.password)  # scrypt: salt and hash
    assert account.accessToken is account.refreshToken is account.idToken is None
    assert session.userId == user.id
    assert browser.cookies["better-auth.session_token"].startswith(f"{session.token}.")
    assert (session.ipAddress, session.userAgent) == (Browser.ADDRESS, Browser.NAME)
    assert PASSWORD not in f"{user} {account} {session}"


def test_an_e_mail_signs_in_however_it_is_spelt(service: Service) -> None:
    """Better Auth stores and finds e-mails in lower case."""
    sign_up(service, "bob@example.com")
    assert can_sign_in(service, "BOB@Example.com")
    assert not can_sign_in(service, "bob@example.com", OTHER_PASSWORD)
    assert not can_sign_in(service, "rob@example.com")


def test_a_user_in_mixed_case_cannot_be_written(better_auth: URL) -> None:
    """An e-mail in mixed case is refused: its user could not sign in."""
    with pytest.raises(DBAPIError, match="user_email_lower_check"):
        sql(better_auth, "INSERT INTO \"user\" (name, email) VALUES ('x', 'X@example.com')")


def test_a_session_lasts_until_its_browser_signs_out(service: Service, head: URL) -> None:
    """Each browser has its own session, which sign-out deletes."""
    laptop, phone = sign_up(service, "a@example.com"), Browser(service)
    phone.post("/sign-in/email", email="a@example.com", password=PASSWORD)
    assert signed_in(laptop) == signed_in(phone) == "a@example.com"
    assert len(laptop.get("/list-sessions").body) == 2
    cookies = laptop.cookies.copy()
    assert laptop.post("/sign-out").status == 200
    laptop.cookies = cookies  # a browser that keeps its cookie
    assert signed_in(laptop) is None
    assert signed_in(phone) == "a@example.com"
    assert len(sql(head, "SELECT FROM session")) == 1


def test_a_session_in_use_is_prolonged(service: Service, head: URL) -> None:
    """Better Auth extends a session that is used at least a day after its last extension."""
    browser = sign_up(service, "a@example.com")
    sql(head, """UPDATE session SET "expiresAt" = now() + '5 days'""")
    assert signed_in(browser) == "a@example.com"
    (session,) = sql(head, """SELECT "expiresAt" > now() + '6 days' AS prolonged FROM session""")
    assert session.prolonged


def test_sign_ups_at_one_moment_make_one_user(service: Service, head: URL) -> None:
    """The unique key on the e-mail accepts one of several concurrent sign-ups.

    The others leave neither an account nor a session.
    """
    spellings = ("eve@example.com", "Eve@example.com", "EVE@EXAMPLE.COM", "eve@Example.com") * 2
    bodies = [{"name": "Eve", "email": email, "password": PASSWORD} for email in spellings]
    answers = service.send(
        *({"method": "POST", "path": "/sign-up/email", "body": body} for body in bodies)
    )
    assert sorted(answer["status"] for answer in answers) == [200] + [422] * 7
    (amounts,) = sql(
        head,
        """
        SELECT
            (SELECT count(*) FROM "user") AS users,
            (SELECT count(*) FROM account) AS accounts,
            (SELECT count(*) FROM session) AS sessions
        """,
    )
    assert tuple(amounts) == (1, 1, 1)
    assert can_sign_in(service, "eve@example.com")


# Changes by users.


def test_a_user_changes_their_name_and_picture(service: Service, head: URL) -> None:
    """Better Auth sets `updatedAt`: its tables have no trigger."""
    browser = sign_up(service, "a@example.com")
    (before,) = sql(head, 'SELECT * FROM "user"')
    assert browser.post("/update-user", name="Ada", image="https://example.com/a.png").status == 200
    (after,) = sql(head, 'SELECT * FROM "user"')
    assert (after.name, after.image) == ("Ada", "https://example.com/a.png")
    assert after.updatedAt > before.updatedAt
    assert after.createdAt == before.createdAt
    assert browser.post("/update-user", image=None).status == 200
    assert browser.get("/get-session").body["user"]["image"] is None


def test_an_e_mail_is_verified_and_changed_by_mail(service: Service, head: URL) -> None:
    """A new e-mail must be confirmed at the old address, then at the new one.

    The links have signed tokens, which are not stored in the database.
    """
    browser = sign_up(service, "old@example.com")
    verify = service.mail("verify")
    assert verify.to == "old@example.com"
    assert browser.get("/verify-email", token=verify.token).status == 200
    assert sql(head, 'SELECT "emailVerified" FROM "user"') == [(True,)]

    assert browser.post("/change-email", newEmail="New@Example.com").status == 200
    confirm = service.mail("confirm")
    assert confirm.to == "old@example.com"
    assert browser.get("/verify-email", token=confirm.token).status == 200
    assert sql(head, 'SELECT email FROM "user"') == [("old@example.com",)]
    verify = service.mail("verify")
    assert verify.to == "new@example.com"
    assert browser.get("/verify-email", token=verify.token).status == 200
    assert sql(head, 'SELECT email, "emailVerified" FROM "user"') == [("new@example.com", True)]
    assert sql(head, "SELECT FROM verification") == []
    assert can_sign_in(service, "NEW@example.com")
    assert not can_sign_in(service, "old@example.com")


def test_nobody_can_change_to_an_e_mail_in_use(service: Service, head: URL) -> None:
    """Better Auth checks the request, and the unique key refuses the change."""
    alice, bob = sign_up(service, "alice@example.com"), sign_up(service, "bob@example.com")
    service.mails()
    assert alice.post("/change-email", newEmail="BOB@example.com").status == 200  # reveals nothing
    assert service.mails() == []
    for browser in (alice, bob):
        browser.post("/change-email", newEmail="both@example.com")
    links = [{"method": "GET", "path": f"/verify-email?token={m.token}"} for m in service.mails()]
    assert sorted(answer["status"] for answer in service.send(*links)) == [200, 500]
    assert len(sql(head, "SELECT FROM \"user\" WHERE email = 'both@example.com'")) == 1


def test_a_new_password_ends_other_sessions(service: Service, head: URL) -> None:
    """A password change can end all other sessions."""
    mine, thiefs = sign_up(service, "a@example.com"), Browser(service)
    thiefs.post("/sign-in/email", email="a@example.com", password=PASSWORD)
    change = {"newPassword": OTHER_PASSWORD, "revokeOtherSessions": True}
    assert mine.post("/change-password", currentPassword="wrong one", **change).status == 400
    assert mine.post("/change-password", currentPassword=PASSWORD, **change).status == 200
    assert signed_in(mine) == "a@example.com"
    assert signed_in(thiefs) is None
    assert not can_sign_in(service, "a@example.com")
    assert can_sign_in(service, "a@example.com", OTHER_PASSWORD)
    assert len(sql(head, "SELECT FROM account")) == 1


def test_a_forgotten_password_is_reset_once(service: Service, head: URL) -> None:
    """The secret in the mail works once. `identifier` stores it in plain text."""
    sign_up(service, "a@example.com")
    service.mails()
    visitor = Browser(service)
    assert visitor.post("/request-password-reset", email="A@example.com").status == 200
    token = service.mail("reset").token
    (row,) = sql(head, "SELECT * FROM verification")
    (user,) = sql(head, 'SELECT * FROM "user"')
    assert (row.identifier, row.value) == (f"reset-password:{token}", str(user.id))
    assert row.id.version == 4
    assert timedelta(minutes=59) < row.expiresAt - datetime.now(UTC) < timedelta(minutes=61)

    body = {"newPassword": OTHER_PASSWORD, "token": token}
    reset = {"method": "POST", "path": "/reset-password", "body": body}
    statuses = sorted(answer["status"] for answer in service.send(*[reset] * 4))
    assert statuses == [200, 400, 400, 400]
    assert can_sign_in(service, "a@example.com", OTHER_PASSWORD)
    assert sql(head, "SELECT FROM verification") == []


def test_what_may_be_used_once_is_reserved_once(service: Service, head: URL) -> None:
    """Plugins derive an id from a token and insert it, so that the key prevents a replay.

    The id is a uuid only with `generateId: "uuid"`.
    """
    reservation = {
        "identifier": "an assertion",
        "value": "used",
        "expiresAt": (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    outcomes = service.call("reserveVerificationValue", *[[reservation]] * 4)
    assert sorted((outcome.value, outcome.code) for outcome in outcomes) == [
        *[(False, None)] * 3,
        (True, None),
    ]
    (row,) = sql(head, "SELECT id FROM verification")
    assert row.id.version == 5


# Sign-in with another provider: without one, the internal methods are called.


def identity(email: str, **account: str) -> list[dict[str, object]]:
    """Return the arguments for a new user from another provider."""
    user = {"name": email, "email": email, "emailVerified": True}
    return [user, {"providerId": "github", "accountId": "4711", **account}]


def test_a_providers_tokens_are_kept_in_the_account(service: Service, head: URL) -> None:
    """A provider's tokens are stored in the account, which only Better Auth can read."""
    expires = "2030-01-02T03:04:05.678Z"
    tokens = {"accessToken": "A", "refreshToken": "R", "idToken": "I", "scope": "user:email"}
    created = service.call(
        "createOAuthUser", identity("Carol@Example.com", **tokens, accessTokenExpiresAt=expires)
    )
    assert created[0].code is None
    (account,) = sql(head, "SELECT * FROM account")
    assert (account.accessToken, account.refreshToken, account.idToken) == ("A", "R", "I")
    assert (account.scope, account.password) == ("user:email", None)
    assert account.accessTokenExpiresAt == datetime.fromisoformat(expires)
    assert sql(head, 'SELECT email FROM "user"') == [("carol@example.com",)]


def test_an_identity_belongs_to_one_account(service: Service, head: URL) -> None:
    """A second account with the same identity is refused, with its user.

    With two such accounts Better Auth would raise an error at every sign-in. Its own schema has
    no key against that.
    """
    outcomes = service.call(
        "createOAuthUser", identity("carol@example.com"), identity("mallory@example.com")
    )
    assert sorted(str(outcome.code) for outcome in outcomes) == ["23505", "None"]
    assert len(sql(head, 'SELECT FROM "user"')) == len(sql(head, "SELECT FROM account")) == 1
    (found,) = service.call(
        "findAccountOwnerByKey", [{"providerId": "github", "accountId": "4711"}]
    )
    assert found.value["kind"] == "owned"


# Expiry.


def test_an_expired_session_signs_nobody_in(service: Service, head: URL) -> None:
    """Better Auth deletes an expired session only when it receives its cookie."""
    shown, abandoned = sign_up(service, "a@example.com"), Browser(service)
    abandoned.post("/sign-in/email", email="a@example.com", password=PASSWORD)
    sql(head, """UPDATE session SET "expiresAt" = now() - interval '1 second'""")
    assert signed_in(shown) is None
    assert len(sql(head, "SELECT FROM session")) == 1


def test_expired_verifications_are_refused_and_cleaned_up(service: Service, head: URL) -> None:
    """Reading a verification deletes expired ones, at most once a minute."""
    visitor = sign_up(service, "a@example.com")
    service.mails()
    visitor.post("/request-password-reset", email="a@example.com")
    late = service.mail("reset").token
    sql(head, """UPDATE verification SET "expiresAt" = now() - interval '1 second'""")
    visitor.post("/request-password-reset", email="a@example.com")
    in_time = service.mail("reset").token
    assert visitor.post("/reset-password", token=late, newPassword=OTHER_PASSWORD).status == 400
    identifiers = sql(head, "SELECT identifier FROM verification")
    assert identifiers == [(f"reset-password:{in_time}",)]


# Better Auth's statements and their plans.

FILL = """
WITH users AS (
    INSERT INTO "user" (name, email)
    SELECT 'x', n || '@example.net' FROM generate_series(1, 5000) AS n
    RETURNING id
), sessions AS (
    INSERT INTO session ("userId", token, "expiresAt", "updatedAt")
    SELECT id, id::text, now() + random() * interval '7 days' - interval '1 hour', now() FROM users
), accounts AS (
    INSERT INTO account ("userId", "providerId", "accountId", "updatedAt")
    SELECT id, 'credential', id::text, now() FROM users
)
INSERT INTO verification (identifier, value, "expiresAt")
SELECT 'reset-password:' || id, id::text, now() + random() * interval '7 days' - interval '1 hour'
FROM users
"""


def steps(url: URL, statement: Statement) -> set[tuple[str, str]]:
    """Return the plan's nodes and their tables, for that role."""
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address) as connection:
        cursor = psycopg.RawCursor(connection)
        explain = f"EXPLAIN (VERBOSE, FORMAT JSON) {statement.sql}"
        ((plans,),) = cursor.execute(explain.encode(), statement.parameters).fetchall()
    waiting, found = [plans[0]["Plan"]], set()
    while waiting:
        plan = waiting.pop()
        waiting += plan.get("Plans", [])
        if plan.get("Schema") == "public":
            found.add((plan.get("Operation", plan["Node Type"]), plan["Relation Name"]))
    return found


def use_everything(service: Service, head: URL) -> None:
    """Use each function of the tests above once, and those for sessions and accounts."""
    browser, other = sign_up(service, "a@example.com"), Browser(service)
    browser.get("/verify-email", token=service.mail("verify").token)
    other.post("/sign-in/email", email="a@example.com", password=PASSWORD)
    sql(head, """UPDATE session SET "expiresAt" = now() + interval '5 days'""")
    assert signed_in(other) == "a@example.com"
    browser.post("/update-user", name="A")
    browser.post("/change-email", newEmail="b@example.com")
    browser.get("/verify-email", token=service.mail("confirm").token)
    browser.get("/verify-email", token=service.mail("verify").token)
    browser.post("/change-password", currentPassword=PASSWORD, newPassword=OTHER_PASSWORD)
    other.post("/request-password-reset", email="b@example.com")
    other.post("/reset-password", token=service.mail("reset").token, newPassword=PASSWORD)
    assert len(browser.get("/list-sessions").body) == 2
    assert len(browser.get("/list-accounts").body) == 1
    assert browser.post("/revoke-other-sessions").status == 200
    other.post("/sign-in/email", email="b@example.com", password=PASSWORD)
    other.post("/sign-out")
    service.call("updateVerificationByIdentifier", ["as plugins do", {"value": "used"}])
    service.call("createOAuthUser", identity("c@example.com"))
    service.call("findAccountOwnerByKey", [{"providerId": "github", "accountId": "4711"}])
    assert browser.post("/delete-user", password=PASSWORD).status == 200


def test_better_auth_never_reads_a_whole_table(
    service: Service, head: URL, better_auth: URL
) -> None:
    """Each statement of Better Auth uses an index, in the plans of its own role."""
    use_everything(service, head)
    asked = {
        statement.sql: statement
        for statement in service.statements()
        if statement.sql.startswith(("select", "update", "delete"))
    }
    sql(head, FILL)
    sql(head, "ANALYZE")
    plans = {text: steps(better_auth, statement) for text, statement in asked.items()}
    for operation, tables in {
        "Update": {"user", "session", "account", "verification"},
        "Delete": {"user", "session", "account", "verification"},
    }.items():
        assert {table for plan in plans.values() for do, table in plan if do == operation} == tables
    assert [text for text, plan in plans.items() if "Seq Scan" in {do for do, _ in plan}] == []


@pytest.mark.parametrize("table", ["session", "verification"])
def test_what_has_expired_is_found_by_index(head: URL, better_auth: URL, table: str) -> None:
    """The clean-up of expired rows uses an index.

    Better Auth deletes expired verifications; an administrator must delete expired sessions.
    """
    cleanup = Statement(f'DELETE FROM {table} WHERE "expiresAt" < now()', [])
    sql(head, FILL)
    sql(head, "ANALYZE")
    assert ("Seq Scan", table) not in steps(better_auth, cleanup)
    expired = set(sql(head, f'SELECT id FROM {table} WHERE "expiresAt" < now()'))
    sql(better_auth, cleanup.sql)
    left = set(sql(head, f"SELECT id FROM {table}"))
    assert expired
    assert not left & expired
    assert len(left) > 4500
    sql(head, f'DROP INDEX "{table}_expiresAt_idx"')
    assert ("Seq Scan", table) in steps(better_auth, cleanup)


@pytest.mark.parametrize(
    "zones",
    [
        ("Asia/Kathmandu", "America/St_Johns"),
        pytest.param(("Pacific/Chatham", "UTC"), marks=pytest.mark.slow),
    ],
    ids=["east and west", "east"],
)
def test_points_in_time_are_the_same_in_every_zone(
    service: Service,
    installed: tuple[str, Path],
    better_auth: URL,
    head: URL,
    zones: tuple[str, str],
) -> None:
    """A time has the same value in processes with different time zones.

    The zones of the process and of its connections differ from UTC by hours and minutes.
    """
    here, there = zones
    before = datetime.now(UTC) - timedelta(milliseconds=1)  # Better Auth stores milliseconds
    with driver(*installed, zone=here) as elsewhere:
        abroad = Service(elsewhere, better_auth, TimeZone=there)
        browser = sign_up(abroad, "a@example.com")
        assert browser.get("/get-session").body == times_of(service, browser)
        abroad.close()
    session = times_of(service, browser)["session"]
    (stored,) = sql(head, "SELECT * FROM session")
    for column in ("createdAt", "updatedAt", "expiresAt"):
        assert datetime.fromisoformat(session[column]) == getattr(stored, column)
    assert before < stored.createdAt < datetime.now(UTC)
    assert stored.expiresAt - stored.createdAt == pytest.approx(
        timedelta(days=7), abs=timedelta(seconds=1)
    )


def times_of(service: Service, browser: Browser) -> dict[str, Any]:
    """Return the session's times as another process reads them."""
    other = Browser(service)
    other.cookies = browser.cookies
    session: dict[str, Any] = other.get("/get-session").body
    return session


def test_a_timestamp_without_a_zone_would_be_wrong_in_silence(
    service: Service, installed: tuple[str, Path], better_auth: URL, head: URL
) -> None:
    """Better Auth accepts a `timestamp` column without an error: so the test above is needed."""
    sql(head, 'ALTER TABLE session ALTER "createdAt" TYPE timestamp')
    assert service.migrations() == {}
    assert service.printed() == []
    with driver(*installed, zone="Asia/Kathmandu") as elsewhere:
        abroad = Service(elsewhere, better_auth)
        browser = sign_up(abroad, "a@example.com")
        here = times_of(service, browser)["session"]["createdAt"]
        there = browser.get("/get-session").body["session"]["createdAt"]
        abroad.close()
    assert datetime.fromisoformat(here) - datetime.fromisoformat(there) == timedelta(hours=5.75)


# Deletion.

OWNED = {"user", "account", "session", "todo", "tag", "todo_tag"}


def everything(head: URL) -> set[tuple[str, str]]:
    """Return every row of every table, as text."""
    tables = sql(head, "SELECT relname FROM pg_stat_user_tables WHERE schemaname = 'public'")
    return {
        (table, row)
        for (table,) in tables
        for (row,) in sql(head, f'SELECT to_jsonb(t)::text FROM "{table}" AS t')
    }


def test_deleting_a_user_deletes_what_is_theirs(service: Service, head: URL) -> None:
    """The user's rows in all tables are deleted, and other users' rows do not change.

    Better Auth deletes sessions, accounts and the user; the foreign keys cascade to tables that
    its role cannot read.
    """
    alice, _bob = sign_up(service, "alice@example.com"), sign_up(service, "bob@example.com")
    sql(
        head,
        """
        WITH todos AS (
            INSERT INTO todo (user_id, title) SELECT id, 'x' FROM "user" RETURNING user_id, id
        ), tags AS (
            INSERT INTO tag (user_id, name) SELECT id, 'x' FROM "user" RETURNING user_id, id
        )
        INSERT INTO todo_tag (user_id, todo_id, tag_id)
        SELECT user_id, todos.id, tags.id FROM todos JOIN tags USING (user_id)
        """,
    )
    ((user,),) = sql(head, "SELECT id::text FROM \"user\" WHERE email = 'alice@example.com'")
    before = everything(head)
    hers = {(table, row) for table, row in before if user in row}
    assert {table for table, _ in hers} == OWNED
    assert {table for table, _ in before - hers} >= OWNED

    assert alice.post("/delete-user", password=OTHER_PASSWORD).status == 400
    assert everything(head) == before
    assert alice.post("/delete-user", password=PASSWORD).status == 200
    assert everything(head) == before - hers
    assert signed_in(alice) is None
    assert not can_sign_in(service, "alice@example.com")
    assert can_sign_in(service, "bob@example.com")


def test_a_verification_outlives_its_user_but_is_useless(service: Service, head: URL) -> None:
    """A deleted user's `verification` stays until it expires, but cannot be used."""
    alice = sign_up(service, "alice@example.com")
    service.mails()
    alice.post("/request-password-reset", email="alice@example.com")
    token = service.mail("reset").token
    assert alice.post("/delete-user", password=PASSWORD).status == 200
    assert {table for table, _ in everything(head) if table != "alembic_version"} == {
        "verification"
    }
    answer = Browser(service).post("/reset-password", token=token, newPassword=OTHER_PASSWORD)
    assert (answer.status, answer.body["code"]) == (400, "USER_NOT_FOUND")


@pytest.mark.slow
def test_many_sign_ups_in_several_processes_make_one_user_each(
    service: Service, installed: tuple[str, Path], better_auth: URL, head: URL
) -> None:
    """The unique key also works for several processes, again and again."""

    def rush(service: Service) -> list[int]:
        bodies = [
            {"name": "x", "email": f"{n}@example.com", "password": PASSWORD}
            for n in range(10)
            for _ in range(3)
        ]
        answers = service.send(
            *({"method": "POST", "path": "/sign-up/email", "body": body} for body in bodies)
        )
        return [answer["status"] for answer in answers]

    with driver(*installed) as second, ThreadPoolExecutor() as threads:
        other = Service(second, better_auth)
        statuses = [status for all_ in threads.map(rush, (service, other)) for status in all_]
        other.close()
    assert (statuses.count(200), statuses.count(422)) == (10, 50)
    for table in ("user", "account", "session"):
        assert len(sql(head, f'SELECT FROM "{table}"')) == 10


# Plugins.


@pytest.mark.slow
@pytest.mark.parametrize(("plugin", "kept"), [("anonymous", False), ("anonymous kept", True)])
def test_todos_of_an_anonymous_user(
    process: Driver, better_auth: URL, head: URL, plugin: str, *, kept: bool
) -> None:
    """They are deleted when the user signs up, unless the anonymous user is kept."""
    sql(head, 'ALTER TABLE "user" ADD COLUMN "isAnonymous" boolean')
    service = Service(process, better_auth, plugins=[plugin])
    browser = Browser(service)
    assert browser.post("/sign-in/anonymous").status == 200
    sql(head, "INSERT INTO todo (user_id, title) SELECT id, 'mine' FROM \"user\"")
    answer = browser.post(
        "/sign-up/email", name="Alice", email="alice@example.com", password=PASSWORD
    )
    assert answer.status == 200, answer.body
    owners = sql(head, 'SELECT "isAnonymous" FROM todo JOIN "user" AS u ON u.id = todo.user_id')
    assert owners == ([(True,)] if kept else [])
    service.close()


@pytest.mark.slow
def test_a_plugin_whose_table_comes_later_needs_a_restart(
    process: Driver, better_auth: URL, head: URL
) -> None:
    """Schema first: a process that found no table stays broken after the table is there."""
    service = Service(process, better_auth, plugins=["jwt"])
    with pytest.raises(AssertionError, match="schema mismatch"):
        sign_up(service, "early@example.com")
    for statement in JWKS:
        sql(head, statement)
    with pytest.raises(AssertionError, match="schema mismatch"):
        sign_up(service, "still@example.com")
    service.close()
    restarted = Service(process, better_auth, plugins=["jwt"])
    assert sign_up(restarted, "late@example.com").get("/token").status == 200
    restarted.close()


# The installation of Better Auth.


def test_the_lock_pins_what_is_asked_for_and_holds_no_address() -> None:
    """The lock has hashes and no registry's address."""
    asked = json.loads((SOURCE / "package.json").read_text(encoding="utf-8"))["dependencies"]
    lock = json.loads((SOURCE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert lock.pop("")["dependencies"] == asked
    for name, version in asked.items():
        assert lock[f"node_modules/{name}"]["version"] == version
    assert all("integrity" in package for package in lock.values())
    assert not any("resolved" in package for package in lock.values())


def program(folder: Path, name: str, script: str) -> None:
    """Write an executable shell script."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("programs", "why"),
    [
        ({}, "node and npm cannot be found; install Node 20 or later"),
        ({"node": "echo v22.1.0"}, "npm cannot be found; install Node 20 or later"),
        ({"node": "echo v18.20.8", "npm": ""}, "is version 18.20.8, which is too old"),
        ({"node": "echo cannot load >&2; exit 127", "npm": ""}, "does not run .cannot load."),
    ],
    ids=["nothing", "no npm", "old", "broken"],
)
def test_without_node_the_tests_are_skipped_but_not_in_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: dict[str, str], why: str
) -> None:
    """Without Node the tests are skipped, but fail in CI."""
    for name, script in programs.items():
        program(tmp_path, name, script)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(IN_CI, raising=False)
    with pytest.raises(pytest.skip.Exception, match=why):
        find_node()
    monkeypatch.setenv(IN_CI, "true")
    with pytest.raises(pytest.fail.Exception, match=why):
        find_node()


def test_an_installation_happens_once_and_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several workers one installs; an interrupted installation is repeated."""
    folder, runs = tmp_path / "better-auth", tmp_path / "runs"
    programs = tmp_path / "programs"
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    program(programs, "npm", f"echo run >>{runs}; echo no network >&2; exit 1")
    with pytest.raises(AssertionError, match="no network"):
        install_better_auth(folder)
    program(programs, "npm", f"echo run >>{runs}; sleep 0.2; touch complete")
    with ThreadPoolExecutor() as threads:
        for found in threads.map(install_better_auth, [folder] * 3):
            assert found.read_bytes() == (SOURCE / "driver.js").read_bytes()
    assert (folder / "complete").exists()
    assert runs.read_text(encoding="utf-8").split() == ["run", "run"]
    (folder / "installed").write_text("another lock's", encoding="utf-8")
    install_better_auth(folder)
    assert runs.read_text(encoding="utf-8").split() == ["run"] * 3


MASKED_TOO = {
    ("session", "token"): "signs its holder in",
    ("session", "ipAddress"): "says where a person was",
    ("session", "userAgent"): "says what a person uses",
    ("verification", "identifier"): "names a person, or is the secret itself",
    ("verification", "value"): "is the secret",
    ("user", "email"): "names a person",
    ("user", "name"): "names a person",
    ("user", "image"): "shows a person",
    ("account", "accountId"): "names a person elsewhere",
}
"""Columns that Better Auth returns to their owner, and why no copy of the rows may hold them."""


def test_every_secret_is_declared(service: Service) -> None:
    """Better Auth's own description of its tables says which columns it never returns."""
    declared = {(one.table.name, one.name) for one in masking.declared_columns()}
    kept = service.kept_from_clients()
    assert ("account", "password") in kept
    assert kept | MASKED_TOO.keys() <= declared
