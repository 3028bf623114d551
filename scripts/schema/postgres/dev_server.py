"""The development server: an embedded PostgreSQL at head, with a login for each group role."""

import socket
import threading
from collections.abc import Callable

from sqlalchemy import URL

from schema.errors import CannotRunError
from schema.postgres import logins
from schema.postgres.connection import connect
from schema.postgres.embedded import embedded
from schema.roles import APPLICATION, BETTER_AUTH

DATABASE = "todo"


def serve(
    postgres: str | int,
    port: int,
    upgrade: Callable[[URL], None],
    echo: Callable[[str], None],
) -> None:
    """Serve a database until interrupted; `upgrade` builds its schema.

    Raises:
        CannotRunError: the port is taken, or the server could not be started.

    """
    with embedded(postgres, port=free_port(port)) as started:
        with connect(started.owner, autocommit=True) as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {DATABASE}")
        owner = started.owner.set(database=DATABASE)
        upgrade(owner)
        made = logins.make(
            owner,
            [logins.login(f"{role}_login", role) for role in (APPLICATION, BETTER_AUTH)],
        )
        echo(
            f"PostgreSQL {started.version} at the head revision, until Ctrl-C; its data is then"
            " gone.\n"
        )
        echo(f"owner, for migrations   {logins.url_with_password(owner)}")
        for title, (login, _new) in zip(("application", "Better Auth"), made, strict=True):
            url = owner.set(username=login.name, password=login.password)
            echo(f"{title:<23} {logins.url_with_password(url)}")
        threading.Event().wait()


def free_port(port: int) -> int:
    """Check that the port is free, or choose one if it is 0."""
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
