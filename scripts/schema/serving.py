"""The development server: an embedded PostgreSQL at head, with a login for each group role."""

import secrets
import socket
import threading
from collections.abc import Callable

from sqlalchemy import URL

from .alembic_run import upgrade
from .database import connect
from .embedded import embedded
from .errors import CannotRunError
from .ownership import APPLICATION, BETTER_AUTH
from .repository import scripts

DATABASE = "todo"


def serve(version: int, port: int, say: Callable[[str], None]) -> None:
    """Serve until interrupted.

    Raises:
        CannotRunError: the port is taken, or the server could not be started.

    """
    with embedded(version, port=_free(port)) as started:
        with connect(started.owner, autocommit=True) as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {DATABASE}")
        owner = started.owner.set(database=DATABASE)
        with connect(owner) as connection:
            upgrade(connection, scripts())
        with connect(owner, autocommit=True) as connection:
            logins = {
                role: _login(connection_url=owner, role=role, run=connection.exec_driver_sql)
                for role in (APPLICATION, BETTER_AUTH)
            }
        say(f"PostgreSQL {version} at the head revision, until Ctrl-C; its data is then gone.\n")
        say(f"owner, for migrations   {_show(owner)}")
        say(f"application             {_show(logins[APPLICATION])}")
        say(f"Better Auth             {_show(logins[BETTER_AUTH])}")
        threading.Event().wait()


def _login(*, connection_url: URL, role: str, run: Callable[[str], object]) -> URL:
    """Make a login that holds the group role and nothing else."""
    name, password = f"{role}_login", secrets.token_urlsafe(12)
    run(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE {role}")
    return connection_url.set(username=name, password=password)


def _show(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _free(port: int) -> int:
    """Choose a free port, or make sure that the given one is."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise CannotRunError(
                f"Port {port} on 127.0.0.1 cannot be used ({error.strerror}); choose another with"
                " --port, or leave it out."
            ) from error
        number: int = probe.getsockname()[1]
        return number
