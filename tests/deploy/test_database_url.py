"""A database URL is read as people and Neon's console write it, and refused without repeating it.

The theory: whatever form names a PostgreSQL database is understood, to the letter of its password;
whatever does not is refused in one sentence that anybody may see.
"""

from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import URL

from migrations.postgres import (
    DRIVER,
    BadDatabaseURLError,
    is_pooled,
    parse_url,
    url_from_environment,
)
from schema.project import ROOT
from tests.support.repo_copy import Launcher

PASSWORD = "s3cr3t"  # noqa: S105  # what must not be repeated

NEON = (
    f"postgresql://neondb_owner:{PASSWORD}@ep-cool-name-123456-pooler.eu-central-1.aws.neon.tech"
    "/neondb?sslmode=require&channel_binding=require"
)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", DRIVER])
def test_every_name_of_postgresql(scheme: str) -> None:
    """All names of PostgreSQL lead to the one driver that is installed."""
    url = parse_url(f"{scheme}://user:{PASSWORD}@host:6543/database")
    assert url.drivername == DRIVER
    assert (url.username, url.password) == ("user", PASSWORD)
    assert (url.host, url.port, url.database) == ("host", 6543, "database")


def test_neons_own_form() -> None:
    """What Neon's console shows can be pasted as it is, with the blanks that come along."""
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
    """A password is what was percent-encoded, and comes out again as it went in."""
    url = parse_url(f"postgresql://user:{written}@host/database")
    assert url.password == meant
    assert parse_url(url.render_as_string(hide_password=False)) == url


def test_socket_folder() -> None:
    """A server that listens on a socket is named by its folder."""
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
    "open-bracket": f"postgresql://user:{PASSWORD}@[::1/database",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_refusal_is_one_sentence_without_the_password(text: str) -> None:
    """What cannot be used is refused in a sentence that does not repeat it, nor does its cause."""
    with pytest.raises(BadDatabaseURLError) as caught:
        parse_url(text)
    message = str(caught.value)
    assert PASSWORD not in message
    assert "\n" not in message
    assert message.endswith(".")
    assert "postgresql://" in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


PASSWORDS = st.text("@/:?#%&=xyzXYZ", min_size=1, max_size=12)


@given(PASSWORDS)
def test_encoded_password_comes_out(password: str) -> None:
    """Whatever a password is made of, percent-encoded it is read to the letter."""
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
    """As it is, a password is read to the letter, or else refused without any piece of it.

    Only a % that happens to encode something means something else; PostgreSQL then says no.
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
    """A missing DATABASE_URL is named, with an example of what it should be."""
    if value is None:
        monkeypatch.delenv("DATABASE_URL", raising=False)
    else:
        monkeypatch.setenv("DATABASE_URL", value)
    with pytest.raises(BadDatabaseURLError, match="DATABASE_URL is not set; set it to"):
        url_from_environment()


def test_environment_names_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """DATABASE_URL is read as any other URL is."""
    direct = NEON.replace("-pooler", "")
    monkeypatch.setenv("DATABASE_URL", direct.replace("postgresql:", "postgres:"))
    assert url_from_environment() == parse_url(direct)


def test_environment_names_the_pooler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deploy needs its session to itself: the pooled host is refused, and the other one named."""
    monkeypatch.setenv("DATABASE_URL", NEON)
    with pytest.raises(BadDatabaseURLError, match="take the direct one") as caught:
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
    """Neon says it in the first part of the host's name."""
    assert is_pooled(URL.create(DRIVER, host=host)) is expected


def test_pooled_host_in_the_query() -> None:
    """Libpq takes the host from there, too."""
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
    """A URL that is given in the wrong place is not repeated when the command says so."""
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
        (["drift"], "Missing option '--database-url'"),
    ],
    ids=["command", "argument", "misspelt", "missing"],
)
def test_what_is_not_understood_is_named(run: Launcher, arguments: list[str], words: str) -> None:
    """Words and options that are no URL are repeated, for that is what helps."""
    result = run.run(ROOT, *arguments)
    assert (result.code, result.out) == (2, ""), result.everything
    assert words in result.err
