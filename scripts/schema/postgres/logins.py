"""The logins of the application and of Better Auth, members of one group role each.

They are created in SQL: on Neon, a role created in the console or by the API ignores row security,
and a member can SET ROLE to it.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote

from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError

from migrations.postgres import first_error_line
from schema.errors import CannotRunError
from schema.postgres import login_risks
from schema.postgres.connection import connect
from schema.roles import APPLICATION, BETTER_AUTH, GROUPS

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
ITERATIONS = 4096
"""PostgreSQL's default for SCRAM-SHA-256."""

# An owner with ADMIN OPTION alone is no member that could use the roles' privileges.
COMMON_MEMBERS = """
SELECT r.rolname FROM pg_roles AS r
WHERE NOT r.rolsuper AND r.rolcanlogin AND NOT EXISTS (
  SELECT FROM unnest(CAST(:groups AS text[])) AS g (name)
  WHERE NOT pg_has_role(r.oid, g.name, 'USAGE') AND NOT pg_has_role(r.oid, g.name, 'SET')
)
ORDER BY 1
"""


_CAN_LOG_IN = """
SELECT r.rolcanlogin, quote_ident(r.rolname), coalesce(r.rolvaliduntil <= now(), false),
  has_table_privilege('pg_authid', 'SELECT')
FROM pg_roles AS r WHERE r.rolname = :name
"""

_HAS_PASSWORD = "SELECT rolpassword IS NOT NULL FROM pg_authid WHERE rolname = :name"  # noqa: S105


@dataclass(frozen=True)
class Login:
    """A login to create."""

    name: str
    group: str
    """The group role of which it is a member."""
    password: str

    def statement(self) -> str:
        """Return the CREATE ROLE statement; it contains a verifier, not the password."""
        return (
            f"CREATE ROLE {self.name} LOGIN PASSWORD '{_scram(self.password)}' IN ROLE {self.group}"
        )


def login(name: str, group: str) -> Login:
    """Return a login with a new password.

    Raises:
        CannotRunError: the name needs quotes, or is a group role's.

    """
    if not NAME.fullmatch(name) or name in {group, *GROUPS}:
        raise CannotRunError(
            f"{_repeatable(name)} cannot be a login's name; use lower-case letters, digits and"
            " underscores, and no group role's name."
        )
    return Login(name, group, secrets.token_urlsafe(24))


def _repeatable(name: str) -> str:
    """Return the name for a message; a database URL in its place may hold a password."""
    return "A database URL" if "://" in name else repr(name)


def pair(application: str, better_auth: str) -> list[Login]:
    """Return the application's login and Better Auth's, with new passwords.

    Raises:
        CannotRunError: a name cannot be used, or both names are the same.

    """
    if application == better_auth:
        raise CannotRunError(
            f"{_repeatable(application)} cannot be both logins: the application would see every"
            " user's sessions; give each a name of its own."
        )
    return [login(application, APPLICATION), login(better_auth, BETTER_AUTH)]


@contextmanager
def temporary_login(owner: URL, prefix: str, group: str) -> Iterator[URL]:
    """Make a login in the group role for a block; return its URL.

    Raises:
        CannotRunError: the owner may not create it, or there is no such group role.

    """
    made = login(f"{prefix}_{secrets.token_hex(6)}", group)
    with connect(owner, autocommit=True) as connection:
        try:
            connection.exec_driver_sql(made.statement())
        except DBAPIError as error:
            raise CannotRunError(
                f"No login in {group} could be made: {first_error_line(error)}."
            ) from error
        try:
            yield owner.set(username=made.name, password=made.password)
        finally:
            connection.exec_driver_sql(f"DROP ROLE {made.name}")


def make(database: URL, logins: list[Login]) -> list[tuple[Login, bool]]:
    """Create the logins in one transaction, and return each with whether it is new.

    An existing login keeps its password and is granted its group role.

    Raises:
        CannotRunError: an existing login can bypass row security or has another group role, a
            group role is missing, or the connecting role cannot create the logins.

    """
    with connect(database) as connection:
        try:
            made = [(one, _make(connection, one)) for one in logins]
            _require_no_common_member(connection)
        except DBAPIError as error:
            raise CannotRunError(
                f"The logins could not be made: {first_error_line(error)}."
            ) from error
        connection.commit()
    return made


def obstacles(database: URL, name: str) -> list[str]:
    """Say what keeps an existing role from logging in, and how to change it.

    Only a superuser can see whether a role has a password.

    Raises:
        CannotRunError: no connection could be made.

    """
    with connect(database) as connection:
        may_log_in, quoted, expired, superuser = connection.execute(
            text(_CAN_LOG_IN), {"name": name}
        ).one()
        found = [] if may_log_in else [f"it is NOLOGIN (ALTER ROLE {quoted} LOGIN)"]
        if expired:
            found.append(f"its password has expired (ALTER ROLE {quoted} VALID UNTIL 'infinity')")
        if superuser and not connection.execute(text(_HAS_PASSWORD), {"name": name}).scalar_one():
            found.append(f"it has no password (in psql: \\password {quoted})")
        return found


def url_with_password(url: URL) -> str:
    """Return the URL as libpq reads it, with the password: only for output that must show it.

    Every special character of the password is encoded; SQLAlchemy would leave blanks.
    """
    plain = url.set(drivername="postgresql")
    if plain.password is None:
        return plain.render_as_string()
    place = "-" * 40
    shown = plain.set(password=place).render_as_string(hide_password=False)
    return shown.replace(f":{place}@", f":{quote(plain.password, safe='')}@", 1)


def _make(connection: Connection, wanted: Login) -> bool:
    exists = text("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :name)")
    if not connection.execute(exists, {"name": wanted.group}).scalar_one():
        raise CannotRunError(
            f"The group role {wanted.group} does not exist there; deploy first (alembic upgrade"
            " head)."
        )
    if not connection.execute(exists, {"name": wanted.name}).scalar_one():
        connection.exec_driver_sql(wanted.statement())
        return True
    risks = login_risks.find(connection, [wanted.name])
    wanted_rights = login_risks.rights_of(wanted.group)
    unsafe = dict.fromkeys(str(risk) for risk in risks if risk.what != wanted_rights)
    if unsafe:
        raise CannotRunError(
            f"The role {wanted.name} exists and has {', '.join(unsafe)}: it would see"
            f" more than its user's rows as {wanted.group}. Choose another name, or revoke that"
            " first."
        )
    connection.exec_driver_sql(f"GRANT {wanted.group} TO {wanted.name}")
    return False


def _require_no_common_member(connection: Connection) -> None:
    """Check that no login reaches both group roles, now that the new memberships are there.

    A login that already existed may be a member of the other one, or of both.
    """
    common = connection.execute(text(COMMON_MEMBERS), {"groups": list(GROUPS)}).scalars().all()
    if common:
        raise CannotRunError(
            f"{', '.join(common)} would be a member of {' and of '.join(GROUPS)}, and see every"
            " user's sessions; nothing was made. Choose other names, or revoke the membership that"
            " connects them."
        )


def _scram(password: str) -> str:
    """Return the password's SCRAM verifier (RFC 5803)."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored = base64.b64encode(hashlib.sha256(client).digest()).decode()
    server = base64.b64encode(hmac.digest(salted, b"Server Key", "sha256")).decode()
    return f"SCRAM-SHA-256${ITERATIONS}:{base64.b64encode(salt).decode()}${stored}:{server}"
