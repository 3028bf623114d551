"""Try on a real project what these commands assume of Neon, on a throwaway branch.

The stand-in for Neon in the tests behaves as is assumed here; only a real project shows whether
Neon does.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import URL, Connection, text

from migrations.postgres import OLDEST_VERSION
from schema.branch import lifecycle
from schema.branch.branches import PREFIX, Branch, find, kind_of, parent_of_new
from schema.branch.database import database_url, wait_until_reachable
from schema.branch.lifecycle import Wanted
from schema.branch.neon import Neon, Show
from schema.errors import CannotRunError
from schema.postgres.connection import connect
from schema.postgres.signals import ignored

_ATTRIBUTES = """
SELECT rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls,
  pg_has_role(oid, 'neon_superuser', 'member'),
  EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = 'public' AND n.nspowner = r.oid),
  EXISTS (SELECT FROM pg_default_acl AS d WHERE d.defaclacl::text LIKE '%neon_superuser=%')
FROM pg_roles AS r WHERE rolname = current_user
"""

_OF_THE_OWNER = (
    ("the owner is a superuser", False),
    ("the owner inherits", True),
    ("the owner may create roles", True),
    ("the owner may create databases", True),
    ("the owner may replicate", True),
    ("the owner ignores row security", True),
    ("the owner is in neon_superuser", True),
    ("the owner owns schema public", True),
    ("neon_superuser gets privileges on new tables", True),
)


@dataclass(frozen=True)
class Assumption:
    """Something that is assumed of Neon, and what was found."""

    what: str
    expected: str
    found: str

    @property
    def true(self) -> bool:
        """Whether it was found as expected."""
        return self.expected == self.found


def attempt(
    neon: Neon,
    parent: str | None,
    database: str | None,
    show: Show,
    mask: Callable[[str | None], None],
) -> Iterator[Assumption]:
    """Run the life of a branch, which is deleted whatever happens; it expires in a day anyway.

    Raises:
        CannotRunError: a step of it failed.

    """
    of = parent_of_new(neon, parent)
    name = f"{PREFIX}try-{secrets.token_hex(4)}"
    wanted = Wanted(name, of.id, "copy", days=1, database=database)
    try:
        yield from _life(neon, wanted, database, show, mask)
    finally:
        try:
            with ignored():
                lifecycle.delete(neon, wanted.name, show)
        except CannotRunError as error:
            raise CannotRunError(
                f"{error} Branch {wanted.name} may be left; it expires in a day."
            ) from error
    yield _yes("a deleted branch is not listed", found=find(neon, wanted.name) is None)


def _life(
    neon: Neon,
    wanted: Wanted,
    database: str | None,
    show: Show,
    mask: Callable[[str | None], None],
) -> Iterator[Assumption]:
    branch = lifecycle.create(neon, wanted, show).branch
    yield Assumption("a new branch's state", "ready", branch.state)
    yield Assumption("a new branch's name", wanted.name, branch.name)
    yield _yes("it has a parent", found=bool(branch.parent))
    yield _yes("it expires in a day", found=_expires_in_a_day(branch))
    yield Assumption("its kind, by anonymized_status", "copy", kind_of(neon, branch))
    url = database_url(neon, branch, database)
    mask(url.password)
    start = time.monotonic()
    wait_until_reachable(url, show)
    seconds = time.monotonic() - start
    yield _yes(f"one can connect within a minute ({seconds:.1f} s)", found=seconds < 60)
    yield from _of_the_database(url)
    with connect(url, autocommit=True) as connection:
        connection.exec_driver_sql("CREATE TABLE public.schema_try (a integer)")
    again = lifecycle.create(neon, wanted, show).branch
    yield _yes("a second create keeps the branch", found=again.id == branch.id)
    url = database_url(neon, again, database)
    mask(url.password)
    wait_until_reachable(url, show)
    with connect(url) as connection:
        gone = connection.scalar(text("SELECT to_regclass('public.schema_try') IS NULL"))
    yield _yes("a reset removes what was done", found=bool(gone))
    yield _yes("after a reset it expires in a day", found=_expires_in_a_day(again))


def _of_the_database(url: URL) -> Iterator[Assumption]:
    yield _yes("the URL requires TLS", found=url.query.get("sslmode") == "require")
    with connect(url) as connection:
        yield from _of_the_owner(connection)
        version = connection.scalar(text("SHOW server_version_num"))
        supported = int(str(version)) >= OLDEST_VERSION * 10000
        yield _yes(f"the version is {OLDEST_VERSION} or later", found=supported)
    options = url.update_query_dict({"options": "-c statement_timeout=12345"})
    with connect(options) as connection:
        shown = connection.scalar(text("SHOW statement_timeout"))
    yield Assumption("a setting in the URL's options", "12345ms", str(shown))


def _of_the_owner(connection: Connection) -> Iterator[Assumption]:
    row = connection.exec_driver_sql(_ATTRIBUTES.replace("%", "%%")).one()
    for (what, expected), found in zip(_OF_THE_OWNER, row, strict=True):
        yield Assumption(what, _word(value=expected), _word(value=found))


def _expires_in_a_day(branch: Branch) -> bool:
    if branch.expires_at is None:
        return False
    return abs(branch.expires_at - datetime.now(UTC) - timedelta(days=1)) < timedelta(minutes=10)


def _yes(what: str, *, found: bool) -> Assumption:
    return Assumption(what, "yes", _word(value=found))


def _word(*, value: bool) -> str:
    return "yes" if value else "no"
