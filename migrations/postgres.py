"""URLs, versions and errors of PostgreSQL, for deploys and the `schema` command."""

import os
import re
from urllib.parse import unquote

import psycopg
from alembic.util import CommandError
from psycopg.pq import Conninfo
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

DRIVER = "postgresql+psycopg"

OLDEST_VERSION = 16
"""The oldest supported major version."""


# From the first quote to the last: the value may contain quotes.
_QUOTED = re.compile(r'".*"', re.DOTALL)

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069]")

_DATA_EXCEPTION = "22"
"""The SQLSTATE class whose messages quote values; other messages quote names."""

_SYNTAX_ERROR = "42601"
"""The SQLSTATE whose messages quote what stands in the statement: a word or a literal."""

_ONE_WORD = re.compile(r'[^"]*"[^\W\d]\w*"[^"]*')

_LIBPQ = {parameter.keyword.decode() for parameter in Conninfo.get_defaults()}
"""libpq's names of the parameters after the ?."""

_ALLOWED = re.compile(
    r"""  # where the server is, and who connects
    host(addr)? | port | user | password | passfile | connect_timeout | target_session_attrs
  | (fallback_)?application_name | load_balance_hosts | keepalives(_\w+)? | tcp_user_timeout
    # how the server and the client prove who they are, and encrypt
  | ssl(mode|negotiation|rootcert|cert|key|password|certmode|crl|crldir|sni) | require(_auth|peer)
  | ((ssl_)?(min|max)_protocol_version) | channel_binding | scram_(client|server)_key
  | gss(encmode|delegation|lib) | krbsrvname""",
    re.VERBOSE,
)
"""The parameters that choose a connection. The others change what SQL means in it."""

_NEON_OPTIONS = re.compile(r"(?:endpoint|project)=[\w-]+")
"""How clients without SNI name Neon's endpoint."""

_UNREADABLE = (
    "The database URL cannot be read; it should look like"
    " postgresql://user:password@host/database, with special characters percent-encoded"
    " (@ is %40, / is %2F, ? is %3F, % is %25)."
)

_SEVERAL_HOSTS = (
    "The database URL names several hosts, and two servers may hold different databases; name one:"
    " postgresql://user@host/database."
)


class BadDatabaseURLError(CommandError):
    """A database URL that cannot be used. The message is one sentence without credentials.

    As a CommandError, Alembic's command line prints it without a traceback.
    """


def parse_url(text: str) -> URL:
    """Parse a `postgres://` or `postgresql://` URL for SQLAlchemy and psycopg 3.

    No error repeats a part of the URL: any part may belong to a password.

    A socket's folder may be written as the host, percent-encoded, as libpq reads it.

    Raises:
        BadDatabaseURLError: it is not a PostgreSQL URL, is ambiguous, has a parameter that does
            more than choose a connection, names several hosts, or names no database.

    """
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        url = None
    if url is None or _is_ambiguous(text):  # outside `except`: that error repeats the password
        several = re.match(r"\w+(?:\+\w+)?://(?:[^@/?,]*@)?[^@/?,]+:\d+,[^@?]*/", text.strip())
        raise BadDatabaseURLError(_SEVERAL_HOSTS if several else _UNREADABLE)
    if url.drivername not in {"postgres", "postgresql", DRIVER}:
        raise BadDatabaseURLError(
            "The database URL is for another database system; only PostgreSQL (postgresql://) is"
            " supported."
        )
    _check_parameters(url)
    if not url.database:
        raise BadDatabaseURLError(
            "The database URL names no database; add one: postgresql://user@host/database."
        )
    if (host := unquote(url.host or "")).startswith("/"):
        url = url._replace(host=None).update_query_dict({"host": host})
    return url.set(drivername=DRIVER)


def _check_parameters(url: URL) -> None:
    """Raise if a parameter after the ? does more than choose a connection."""
    query = url.query
    if not query.keys() <= _LIBPQ:  # a name that libpq does not know may be part of a password
        raise BadDatabaseURLError(
            "The database URL has an unknown parameter after the ?; remove it, or percent-encode &"
            " and = in the value before it: postgresql://…?sslmode=require."
        )
    options = query.get("options", "endpoint=-")
    neons = isinstance(options, str) and _NEON_OPTIONS.fullmatch(options)
    for name in query:
        if _ALLOWED.fullmatch(name) or (name == "options" and neons):
            continue
        raise BadDatabaseURLError(
            f"The database URL sets {name}, which can change what SQL does; remove it. Parameters"
            " of the connection and of TLS are accepted: postgresql://…?sslmode=require."
        )
    parts = {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
    for name, value in query.items():
        if not isinstance(value, str) or parts.get(name) is not None:
            raise BadDatabaseURLError(
                f"The database URL names its {name} twice; name it once: postgresql://…?{name}=…."
            )
    if "," in (url.host or "") + "".join(str(query.get(name)) for name in ("host", "hostaddr")):
        raise BadDatabaseURLError(_SEVERAL_HOSTS)


def _is_ambiguous(text: str) -> bool:
    """Whether unencoded characters of a password may have been read as another part of the URL.

    The first / or ? ends the host (RFC 3986). With an @ after it, that / or ? may belong to the
    password; so may an & before a parameter without a value.
    """
    authority, *rest = re.split("[/?]", text.partition("://")[2], maxsplit=1)
    parameters = text.partition("?")[2].strip()
    return (
        authority.count("@") > 1
        or any("@" in part for part in rest)
        or bool(parameters and not all(re.match("[^=]+=.", one) for one in parameters.split("&")))
    )


def is_pooled(url: URL) -> bool:
    """Whether the host is Neon's pooler, which keeps no session locks or settings."""
    host = url.host or url.query.get("host") or ""
    hosts = [host] if isinstance(host, str) else host
    return any(one.lower().partition(".")[0].endswith("-pooler") for one in hosts)


def url_from_environment() -> URL:
    """Parse the URL in DATABASE_URL.

    Raises:
        BadDatabaseURLError: it is unset, cannot be used, or names Neon's pooler.

    """
    text = os.environ.get("DATABASE_URL", "")
    if not text.strip():
        raise BadDatabaseURLError(
            "DATABASE_URL is not set; set it to the database to migrate, for example"
            " DATABASE_URL=postgresql://user:password@host/database alembic upgrade head."
        )
    url = parse_url(text)
    if is_pooled(url):
        raise BadDatabaseURLError(
            "DATABASE_URL names Neon's pooled host, which does not keep a session's locks and"
            " settings; use the direct host, whose name has no -pooler."
        )
    return url


def visible(text: str) -> str:
    """Write control and direction characters as escapes: a name may hold what a terminal obeys."""
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def describe_url(url: URL) -> str:
    """Describe a database in a message: name, host, port and role, never the password."""
    host = url.host or url.query.get("host") or "the local socket"
    port = f":{url.port}" if url.port else ""
    return f"{url.database} on {host}{port} as {url.username or 'the default role'}"


def first_error_line(error: BaseException) -> str:
    """Return the first line of PostgreSQL's or the driver's message, without values of rows."""
    first: BaseException | None = error
    while first is not None and not isinstance(first, DBAPIError | psycopg.Error):
        first = first.__context__
    if first is None:
        first = error
    original = first.orig if isinstance(first, DBAPIError) else first
    message = str(original)
    if isinstance(original, psycopg.Error) and _quotes_values(original):
        message = _QUOTED.sub('"…"', original.diag.message_primary or "")
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(original).__name__


def _quotes_values(error: psycopg.Error) -> bool:
    state = error.sqlstate or ""
    if state == _SYNTAX_ERROR:
        return not _ONE_WORD.fullmatch(error.diag.message_primary or "")
    return state.startswith(_DATA_EXCEPTION)
