"""Database URLs, as people and Neon's console write them.

The theory: every form of a PostgreSQL URL is parsed, with its exact password. Any other text is
rejected in one sentence that contains no part of it.
"""

from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import URL, event

from migrations.deploy.connection import open_engine
from migrations.postgres import (
    DRIVER,
    BadDatabaseURLError,
    is_pooled,
    parse_url,
    url_from_environment,
)
from schema.project import ROOT
from tests.support.repo_copy import Launcher

PASSWORD = "s3cr3t"  # noqa: S105  # must not appear in any output

NEON = (
    f"postgresql://neondb_owner:{PASSWORD}@ep-cool-name-123456-pooler.eu-central-1.aws.neon.tech"
    "/neondb?sslmode=require&channel_binding=require"
)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", DRIVER])
def test_every_name_of_postgresql(scheme: str) -> None:
    """Every scheme of PostgreSQL selects the installed driver."""
    url = parse_url(f"{scheme}://user:{PASSWORD}@host:6543/database")
    assert url.drivername == DRIVER
    assert (url.username, url.password) == ("user", PASSWORD)
    assert (url.host, url.port, url.database) == ("host", 6543, "database")


def test_neons_own_form() -> None:
    """Neon's URL is accepted as pasted, with surrounding blanks."""
    url = parse_url(f"  {NEON}\n")
    assert url.drivername == DRIVER
    assert url.password == PASSWORD
    assert url.host == "ep-cool-name-123456-pooler.eu-central-1.aws.neon.tech"
    assert url.database == "neondb"
    assert url.query == {"sslmode": "require", "channel_binding": "require"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("100%25", "100%"),
        ("a%40b%3Ac%2Fd", "a@b:c/d"),
        ("%25s%25%28x%29s", "%s%(x)s"),
        ("p%C3%A4ss%20w%F0%9F%94%91rd", "päss w🔑rd"),
        ("a+b", "a+b"),
        ("$x'\"\\", "$x'\"\\"),
    ],
    ids=["percent", "separators", "placeholders", "unicode", "plus", "quotes"],
)
def test_password_to_the_letter(written: str, meant: str) -> None:
    """A percent-encoded password is decoded, and encoded again to the same text."""
    url = parse_url(f"postgresql://user:{written}@host/database")
    assert url.password == meant
    assert parse_url(url.render_as_string(hide_password=False)) == url


def test_socket_folder() -> None:
    """The host can be the folder of a Unix socket."""
    url = parse_url("postgresql://user@/database?host=/run/postgresql")
    assert url.host is None
    assert url.query == {"host": "/run/postgresql"}


REFUSED = {
    "empty": "",
    "blank": "  ",
    "no-url": f"user:{PASSWORD}@host/database",
    "keywords": f"host=host user=user password={PASSWORD} dbname=database",
    "port-is-no-number": f"postgresql://user:{PASSWORD}@host:port/database",
    "no-database": f"postgresql://user:{PASSWORD}@host",
    "empty-database": f"postgresql://user:{PASSWORD}@host/",
    "mysql": f"mysql://user:{PASSWORD}@host/database",
    "sqlite": f"sqlite:///{PASSWORD}",
    "another-driver": f"postgresql+asyncpg://user:{PASSWORD}@host/database",
    "jdbc": f"jdbc:postgresql://user:{PASSWORD}@host/database",
    "unencoded-at-sign": f"postgresql://user:pass@{PASSWORD}@host/database",
    "unencoded-slash": f"postgresql://user:pass/{PASSWORD}@host",
    "unencoded-at-and-slash": f"postgresql://user:pa@ss/{PASSWORD}@host/database",
    "unencoded-question-mark": f"postgresql://user:pa?ss{PASSWORD}@host/database",
    "at-sign-in-a-parameter": f"postgresql://host:5432/database?password=pass@{PASSWORD}",
    "ampersand-in-a-parameter": f"postgresql://host/database?password=pass&{PASSWORD}",
    "separators-in-a-parameter": f"postgresql://host/database?password=pass&{PASSWORD}=x",
    "unknown-scheme": f"{PASSWORD}://user@host/database",
    "unencoded-separators": f"postgresql://user:a/{PASSWORD}@{PASSWORD}@host/database",
    "at-and-slash": f"postgresql://owner:Tr0ub@dor/{PASSWORD}@host/database",
    "colon-slash-and-at": f"postgresql://owner:a:/{PASSWORD}@b@host:5432/database",
    "twice": f"postgresql://user:{PASSWORD}@host/database?password={PASSWORD}",
    "several-hosts": f"postgresql://user:{PASSWORD}@one,two/database",
    "several-hosts-and-ports": f"postgresql://user:{PASSWORD}@one:1,two:2/database",
    "several-hosts-in-a-parameter": f"postgresql://user:{PASSWORD}@/database?host=one,two",
    "host-twice-in-parameters": f"postgresql://user:{PASSWORD}@/database?host=one&host=two",
    "open-bracket": f"postgresql://user:{PASSWORD}@[::1/database",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_refusal_is_one_sentence_without_the_password(text: str) -> None:
    """A bad URL is rejected in one sentence; neither it nor its cause contains the password."""
    with pytest.raises(BadDatabaseURLError) as caught:
        parse_url(text)
    message = str(caught.value)
    assert PASSWORD not in message
    assert "\n" not in message
    assert message.endswith(".")
    assert "postgresql://" in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("options=-csearch_path%3Dmyapp", "sets options"),
        ("options=-c+lock_timeout%3D0", "sets options"),
        ("options=endpoint%3Dep-a+-csearch_path%3Dx", "sets options"),
        ("client_encoding=latin1", "sets client_encoding"),
        ("dbname=other", "sets dbname"),
        ("service=production", "sets service"),
        ("replication=true", "sets replication"),
        ("autocommit=true", "has an unknown parameter"),
        ("prepare_threshold=0", "has an unknown parameter"),
        ("row_factory=x", "has an unknown parameter"),
        ("host=one", "names its host twice"),
    ],
)
def test_parameters_that_change_more_than_the_connection(parameter: str, words: str) -> None:
    """A parameter that changes what SQL does is named, if libpq knows the name; never its value."""
    with pytest.raises(BadDatabaseURLError) as caught:
        parse_url(f"postgresql://user:{PASSWORD}@host/database?sslmode=require&{parameter}")
    assert words in str(caught.value)
    assert ("autocommit" in str(caught.value)) is False
    assert parameter.partition("=")[2] not in str(caught.value)


@pytest.mark.parametrize(
    "parameters",
    [
        "sslmode=verify-full&sslrootcert=system&sslnegotiation=direct&channel_binding=require",
        "sslcert=a&sslkey=b&sslcrl=c&require_auth=scram-sha-256&gssencmode=disable",
        "connect_timeout=5&application_name=x&target_session_attrs=read-write&hostaddr=127.0.0.1",
        "options=endpoint%3Dep-cool-name-123456",
        "options=project%3Dep-cool-name-123456",
    ],
)
def test_parameters_of_a_connection(parameters: str) -> None:
    """Parameters that choose a connection are accepted, and Neon's name of an endpoint."""
    url = parse_url(f"postgresql://user@host/database?{parameters}")
    assert url.query.keys() == {one.partition("=")[0] for one in parameters.split("&")}


def test_neons_endpoint_reaches_the_server() -> None:
    """A deploy sends the name of the endpoint behind its own settings."""
    engine = open_engine(parse_url("postgresql://user@host/database?options=endpoint%3Dep-x"))
    sent: dict[str, str] = {}

    def look(_dialect: object, _record: object, _values: object, named: dict[str, str]) -> None:
        sent.update(named)
        raise InterruptedError

    event.listen(engine, "do_connect", look)
    with pytest.raises(InterruptedError):
        engine.connect()
    assert sent["options"].startswith("-c lock_timeout=200ms -c ")
    assert sent["options"].endswith(" endpoint=ep-x")


def test_encoded_socket_folder() -> None:
    """A socket's folder may be written as the host, percent-encoded, as for libpq."""
    url = parse_url(f"postgresql://user:{PASSWORD}@%2Frun%2Fpostgresql/database")
    assert url == parse_url(f"postgresql://user:{PASSWORD}@/database?host=/run/postgresql")


PASSWORDS = st.text("@/:?#%&=xyzXYZ", min_size=1, max_size=12)


@given(PASSWORDS)
def test_encoded_password_comes_out(password: str) -> None:
    """Any percent-encoded password is decoded exactly."""
    url = parse_url(f"postgresql://user:{quote(password, safe='')}@host/database")
    assert (url.password, url.host, url.database) == (password, "host", "database")


@pytest.mark.parametrize(
    "form",
    [
        "postgresql://user:{}@host/database",
        "postgresql://user:{}@host:5432/database?sslmode=require",
        "postgresql://host:5432/database?user=user&password={}",
    ],
    ids=["password", "password-and-parameter", "parameter"],
)
@given(password=PASSWORDS)
@example(password="Yz@dor/XYZ")  # noqa: S106  # it is none
@example(password="zz?xyz=xyz")  # noqa: S106  # it is none
def test_raw_password_is_read_or_hidden(form: str, password: str) -> None:
    """An unencoded password is parsed exactly, or rejected without repeating a piece of it.

    The exception is a % that encodes a character by chance: PostgreSQL then rejects the password.
    """
    sentence = ""
    try:
        url = parse_url(form.format(password))
    except BadDatabaseURLError as error:
        sentence = str(error)
    else:
        assert unquote(password) == (url.password or url.query.get("password"))
        assert (url.host, url.database) == ("host", "database")
    pieces = {password[start : start + 3] for start in range(len(password) - 2)}
    assert not {piece for piece in pieces - {"://"} if piece in sentence}


@pytest.mark.parametrize("value", [None, "", " \n"], ids=["unset", "empty", "blank"])
def test_environment_without_a_url(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """The message about a missing DATABASE_URL contains an example."""
    if value is None:
        monkeypatch.delenv("DATABASE_URL", raising=False)
    else:
        monkeypatch.setenv("DATABASE_URL", value)
    with pytest.raises(BadDatabaseURLError, match="DATABASE_URL is not set; set it to"):
        url_from_environment()


def test_environment_names_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """DATABASE_URL is parsed like any other URL."""
    direct = NEON.replace("-pooler", "")
    monkeypatch.setenv("DATABASE_URL", direct.replace("postgresql:", "postgres:"))
    assert url_from_environment() == parse_url(direct)


def test_environment_names_the_pooler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deploy needs session state, so the pooled host is rejected and the direct one named."""
    monkeypatch.setenv("DATABASE_URL", NEON)
    with pytest.raises(BadDatabaseURLError, match="use the direct host") as caught:
        url_from_environment()
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("ep-x-pooler.eu.neon.invalid", True),
        ("ep-x.eu.neon.invalid", False),
        ("ep-pooler-x.eu.neon.invalid", False),
        ("db.my-pooler.invalid", False),
        ("EP-X-POOLER.eu.neon.invalid", True),
        (None, False),
    ],
)
def test_pooled_host(host: str | None, *, expected: bool) -> None:
    """The first part of Neon's host name shows whether it is pooled."""
    assert is_pooled(URL.create(DRIVER, host=host)) is expected


def test_pooled_host_in_the_query() -> None:
    """The host can be a parameter, as in libpq."""
    assert is_pooled(parse_url("postgresql:///database?host=ep-x-pooler.eu.neon.invalid"))


STRAY = f"postgresql://user:{PASSWORD}@host/database"


@pytest.mark.parametrize(
    "arguments",
    [
        [STRAY],
        ["check", STRAY],
        ["check", "--database-url", "postgresql://user:pass", f"{PASSWORD}@host/database"],
        ["drift", f"--{STRAY}"],
        ["doctor", f"--databaseurl={STRAY}"],
        ["serve", "--port", STRAY],
        ["roles", f"--no-such={PASSWORD}", STRAY],
    ],
    ids=["command", "argument", "blank", "option", "misspelt", "number", "misspelt-and-argument"],
)
def test_url_where_no_url_belongs(run: Launcher, arguments: list[str]) -> None:
    """A URL in the wrong place is reported without repeating it."""
    result = run.run(ROOT, *arguments)
    assert (result.code, result.out) == (2, ""), result.everything
    assert PASSWORD not in result.err
    assert "host/database" not in result.err
    assert "Usage: schema" in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chekc"], "No such command 'chekc'"),
        (["check", "all"], "unexpected extra argument(s) (all)"),
        (["doctor", f"--databas-url={STRAY}"], "--databas-url (Possible options: --database-url)"),
    ],
    ids=["command", "argument", "misspelt"],
)
def test_what_is_not_understood_is_named(run: Launcher, arguments: list[str], words: str) -> None:
    """The message names an unknown word or option that is not a URL."""
    result = run.run(ROOT, *arguments)
    assert (result.code, result.out) == (2, ""), result.everything
    assert words in result.err
