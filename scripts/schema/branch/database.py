"""The database of a branch: its URL, and whether one can connect to it."""

from alembic.runtime.migration import MigrationContext
from sqlalchemy import URL
from sqlalchemy.exc import OperationalError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from migrations.postgres import is_pooled, parse_url
from schema.branch.branches import Branch, require_no_url
from schema.branch.neon import Neon, NeonError, Show, understood
from schema.errors import CannotRunError
from schema.postgres.connection import connect

START_TIMEOUT = 120
"""Seconds that a compute may take to start."""


def database_and_owner(neon: Neon, branch: Branch, name: str | None = None) -> tuple[str, str]:
    """Return the name of the branch's database, and of the role that owns it.

    Raises:
        CannotRunError: there is none of that name, or without a name not exactly one.

    """
    require_no_url(name or "")
    with understood():
        databases = neon.get(f"branches/{branch.id}/databases")["databases"]
        names = ", ".join(sorted(one["name"] for one in databases)) or "none"
        found = [one for one in databases if name in {None, one["name"]}]
    if not found:
        what = f"database {name}" if name else "database"
        raise CannotRunError(f"Branch {branch.name} has no {what}; it has: {names}.")
    if len(found) > 1:
        raise CannotRunError(
            f"Branch {branch.name} has several databases ({names}); name one with --database."
        )
    return found[0]["name"], found[0]["owner_name"]


def database_url(neon: Neon, branch: Branch, name: str | None = None) -> URL:
    """Return the URL of the branch's database, on the direct host, as the database's owner.

    Raises:
        CannotRunError: the branch has no compute, or not exactly one database to choose.

    """
    database, owner = database_and_owner(neon, branch, name)
    try:
        answer = neon.get(
            "connection_uri",
            branch_id=branch.id,
            database_name=database,
            role_name=owner,
            pooled=False,
        )
    except NeonError as error:
        if error.status != 404:
            raise
        raise CannotRunError(f"Branch {branch.name} has no compute to connect to.") from error
    with understood():
        text = str(answer["uri"])
    url = parse_url(text)
    if is_pooled(url):
        raise CannotRunError("Neon named the pooled host, on which no migration can run.")
    return url


def wait_until_reachable(url: URL, show: Show) -> str:
    """Connect until the compute has started, and return the database's revision, or "".

    The first attempts may fail, and a connection may break: another run may reset the branch.

    Raises:
        CannotRunError: it cannot be reached.

    """
    show("waiting for the compute")
    attempts = Retrying(
        retry=retry_if_exception(_may_pass),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_delay(START_TIMEOUT),
        reraise=True,
    )
    return attempts(_read_revision, url)


def is_password_refused(error: BaseException) -> bool:
    """Whether the server does not accept the URL's password, for example because it is renewed."""
    return isinstance(error, CannotRunError) and "authentication failed" in str(error)


def _may_pass(error: BaseException) -> bool:
    """Whether a later connection may succeed: with another password it may not."""
    if isinstance(error, CannotRunError):
        return not is_password_refused(error)
    return isinstance(error, OperationalError)


def _read_revision(url: URL) -> str:
    with connect(url) as connection:
        return ", ".join(MigrationContext.configure(connection).get_current_heads())
