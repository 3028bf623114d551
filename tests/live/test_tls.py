"""`--database-url` with TLS, as in libpq.

The theory: every connection of a command uses the TLS options of the URL, and a failure is reported
in one sentence without the password. The embedded server has no TLS, so a proxy in front of it does
the handshake, with certificates made for the test.
"""

import asyncio
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from migrations.postgres import parse_url
from schema.postgres.connection import connect
from schema.postgres.dev_server import free_port
from schema.postgres.embedded import OWNER, embedded
from schema.project import ROOT
from tests.support.alembic_process import deploy
from tests.support.repo_copy import Launcher, Result

PASSWORD = "s3cr3t%@:/?#[]ö"  # noqa: S105  # must not appear in any output
PARTS = ("s3cr3t", "s3cr3t%25")
"""Parts of the password, plain and percent-encoded."""

SSL_REQUEST = struct.pack("!ii", 8, 80877103)


@dataclass(frozen=True)
class Ports:
    """A server, and a proxy with TLS in front of it."""

    plain: int
    tls: int
    authority: Path
    """The certificate of the authority that signed the proxy's, which is for localhost only."""
    stranger: Path
    """Another authority's certificate."""
    encrypted: list[str]
    """The TLS versions of the connections that came through the proxy."""


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextmanager
def proxy(target: int, context: ssl.SSLContext, encrypted: list[str]) -> Iterator[int]:
    """Answer PostgreSQL's TLS request on a port, and forward the decrypted data."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await reader.readexactly(len(SSL_REQUEST)) != SSL_REQUEST:
                writer.close()  # this server insists on TLS
                return
            writer.write(b"S")
            await writer.drain()
            await writer.start_tls(context)
            encrypted.append(writer.get_extra_info("ssl_object").version())
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", target)
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        except (OSError, asyncio.IncompleteReadError):  # a client that refuses the certificate
            writer.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def stop() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """A server that requires passwords, with and without TLS."""
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = folder / "authority.pem", folder / "stranger.pem"
    signer = trustme.CA()
    signer.cert_pem.write_to_path(authority)
    trustme.CA().cert_pem.write_to_path(stranger)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    signer.issue_cert("localhost").configure_cert(context)
    encrypted: list[str] = []
    plain = free_port(0)
    with embedded(port=plain) as started:
        with connect(started.superuser, autocommit=True) as connection:
            doubled = PASSWORD.replace("%", "%%")  # the driver takes it for a placeholder
            connection.exec_driver_sql(f"ALTER ROLE {OWNER} PASSWORD '{doubled}'")
        with proxy(plain, context, encrypted) as tls:
            yield Ports(plain, tls, authority, stranger, encrypted)


def url(port: int, options: str, *, host: str = "localhost", scheme: str = "postgresql") -> str:
    """Format a provider's URL for the server on that port."""
    query = f"?{options}" if options else ""
    return f"{scheme}://{OWNER}:{quote(PASSWORD, safe='')}@{host}:{port}/postgres{query}"


def snapshot(run: Launcher, database_url: str) -> Result:
    """Run the shortest command that builds the schema on a server."""
    return run.run(ROOT, "snapshot", "--database-url", database_url)


def assert_works(result: Result) -> None:
    """Assert that the command did its work."""
    assert result.code == 0, result.everything
    assert result.out == "Everything is up to date.\n"
    assert result.err == ""


def assert_refused(result: Result, *fragments: str) -> None:
    """Assert that it is refused in one sentence with these fragments and without a secret."""
    assert result.code == 2, result.everything
    assert result.out == ""
    assert result.err.startswith("schema: No connection to postgres on "), result.everything
    assert result.err.endswith(".\n"), result.everything
    assert len(result.err.splitlines()) == 1, result.everything
    for fragment in fragments:
        assert fragment in result.err, result.everything
    for secret in PARTS:
        assert secret not in result.everything


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheme",
    [
        "postgresql",
        pytest.param("postgres", marks=pytest.mark.slow),
        pytest.param("postgresql+psycopg", marks=pytest.mark.slow),
    ],
)
def test_encrypted(run: Launcher, ports: Ports, scheme: str) -> None:
    """`sslmode=require`, as providers write it, and a password with every separator in it."""
    before = len(ports.encrypted)
    assert_works(snapshot(run, url(ports.tls, "sslmode=require", scheme=scheme)))
    # Those to the scratch database too, not only the first one.
    made = ports.encrypted[before:]
    assert len(made) > 1
    assert set(made) == {"TLSv1.3"}


def test_verified(run: Launcher, ports: Ports) -> None:
    """`sslmode=verify-full` with the authority's certificate, to the name that it is for."""
    before = len(ports.encrypted)
    options = f"sslmode=verify-full&sslrootcert={ports.authority}"
    assert_works(snapshot(run, url(ports.tls, options)))
    assert len(ports.encrypted) > before


def test_deploy(run: Launcher, ports: Ports) -> None:
    """Both sessions of a deploy use the TLS options of the URL."""
    address = url(ports.tls, "sslmode=require")
    with connect(parse_url(address), autocommit=True) as connection:
        connection.exec_driver_sql("CREATE DATABASE deployed")
    before = len(ports.encrypted)
    # The second one connects when a statement takes longer than this.
    at_once = "from migrations.deploy import lock_monitor; lock_monitor.POLL_SECONDS = 0.0005"
    result = deploy(run, ROOT, parse_url(address).set(database="deployed"), before=at_once)
    assert result.code == 0, result.everything
    assert ports.encrypted[before:] == ["TLSv1.3", "TLSv1.3"]


@pytest.mark.slow
def test_whole_check_encrypted(run: Launcher, ports: Ports) -> None:
    """Every check's connections are verified, the lint's own process included."""
    options = f"sslmode=verify-full&sslrootcert={ports.authority}"
    result = run.run(ROOT, "check", "--database-url", url(ports.tls, options))
    assert result.code == 0, result.everything
    assert "✓ passes  SQL lint" in result.out
    assert not any(secret in result.everything for secret in PARTS)


def test_unknown_authority(run: Launcher, ports: Ports) -> None:
    """A certificate of another authority is refused."""
    options = f"sslmode=verify-full&sslrootcert={ports.stranger}"
    assert_refused(snapshot(run, url(ports.tls, options)), "certificate verify failed")


def test_another_host(run: Launcher, ports: Ports) -> None:
    """A certificate for another host is refused, and both names are printed."""
    options = f"sslmode=verify-full&sslrootcert={ports.authority}"
    result = snapshot(run, url(ports.tls, options, host="127.0.0.1"))
    assert_refused(result, 'server certificate for "localhost"', '"127.0.0.1"')


def test_missing_certificate(run: Launcher, ports: Ports, tmp_path: Path) -> None:
    """A missing certificate file is named."""
    missing = tmp_path / "missing.pem"
    options = f"sslmode=verify-full&sslrootcert={missing}"
    assert_refused(snapshot(run, url(ports.tls, options)), str(missing), "does not exist")


def test_server_without_tls(run: Launcher, ports: Ports) -> None:
    """If the URL requires TLS, a server without it is refused."""
    assert_refused(snapshot(run, url(ports.plain, "sslmode=require")), "does not support SSL")


def test_server_that_insists_on_tls(run: Launcher, ports: Ports) -> None:
    """A server that closes connections without TLS is reported."""
    assert_refused(snapshot(run, url(ports.tls, "sslmode=disable")), "server closed the connection")


def test_channel_binding(run: Launcher, ports: Ports) -> None:
    """Required channel binding rejects a man in the middle, such as this proxy."""
    options = "sslmode=require&channel_binding=require"
    assert_refused(snapshot(run, url(ports.tls, options)), "channel binding")


def test_wrong_password_through_tls(run: Launcher, ports: Ports) -> None:
    """A rejected password is reported and not repeated."""
    wrong = url(ports.tls, "sslmode=require").replace("s3cr3t", "s3cr3tly")
    assert_refused(snapshot(run, wrong), "password authentication failed")
