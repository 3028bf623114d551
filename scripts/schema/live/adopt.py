"""`schema adopt`: stamp a database that has the tables but no revision.

The fingerprints tell which revision's schema the database has. That revision is stamped: Alembic's
table is made, with the privileges that the history gives it there.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import psycopg
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError

from migrations import snapshot
from migrations.deploy import verification
from migrations.deploy.advisory_lock import hold_deploy_lock
from migrations.postgres import describe_url, first_error_line, is_pooled
from migrations.snapshot import fingerprints
from migrations.snapshot.fingerprints import BASE, History
from schema.errors import CannotRunError
from schema.live import comparison, drift, read, trial
from schema.live.difference import Difference
from schema.live.differences import facts_of
from schema.live.history_schemas import Copy
from schema.live.read import Live, Recorded
from schema.live.trial import Repair
from schema.postgres.connection import connect

DEPLOY_TIMEOUT = 60
"""Seconds to wait for a running deploy."""

# Alembic's table belongs in the schema of the revisions' tables.
_SETTINGS = "SET LOCAL search_path = public; SET LOCAL lock_timeout = '2s'"

# Alembic's table must belong to the database's owner, even if a superuser or another role stamps.
_NEW_OWNER = """
SELECT quote_ident(pg_get_userbyid(d.datdba))
FROM pg_database AS d, pg_class AS c
WHERE d.datname = current_database() AND c.oid = 'public.alembic_version'::regclass
  AND c.relowner <> d.datdba
"""

# Neon grants privileges on every table to neon_superuser.
_GRANTEES = """
SELECT DISTINCT coalesce(quote_ident(r.rolname), 'PUBLIC')
FROM pg_class AS c
CROSS JOIN aclexplode(c.relacl) AS g
LEFT JOIN pg_roles AS r ON r.oid = g.grantee
WHERE c.oid = 'public.alembic_version'::regclass AND g.grantee <> c.relowner
  AND r.rolname IS DISTINCT FROM 'neon_superuser'
"""

_PRIVILEGES = re.compile(r"[A-Z]+(, [A-Z]+)*")
"""How a snapshot writes privileges that the owner granted without the grant option."""


@dataclass(frozen=True)
class Match:
    """The revision whose schema the database has, or the nearest one."""

    server: str
    revision: str
    head: str
    behind: int
    """Number of revisions from `revision` to the head."""
    unverified: Sequence[str]
    """Revisions up to this one that change no schema object, so they cannot be verified."""
    equals: bool
    """Whether all that the history owns is as it is at `revision`."""
    foreign: Sequence[str]
    """Objects that no revision has, without those on the ignore list."""


def read_database(target: URL) -> Live:
    """Read the schema of the database to adopt, in read-only transactions.

    Raises:
        CannotRunError: it cannot be adopted, or not with this role or host.

    """
    if is_pooled(target):
        raise CannotRunError(
            "A pooled host cannot hold the deploy lock"
            f" ({describe_url(target)}); use the direct host, whose name has no -pooler."
        )

    def read_adoptable(connection: Connection) -> Live:
        live = read.read_live(connection)
        if not live.recorded.revisions:
            _require_adoptable(connection, live.recorded)
        return live

    return read.read_twice(target, read_adoptable)


def match(live: Live, history: History, recorded: str | None = None) -> Match:
    """Find the revision whose schema the database has, or the nearest one.

    `recorded` is the only one that it may be, if it is known from elsewhere.

    Raises:
        CannotRunError: the database records a revision already, or has nothing of the history.

    """
    if live.recorded.revisions:
        raise CannotRunError(_describe_recorded(live, history))
    schemas = {
        revision: {name: one for name, one in objects.items() if name != read.VERSION_TABLE}
        for revision, objects in history.items()
        if recorded is None or revision == recorded
    }
    found = comparison.compare(_without_version_table(live), schemas)
    own = [name for name in found.objects.left if name.startswith("table ")]
    if recorded is None and found.nearest == BASE and not own:
        others = verification.named(drift.not_ignored(found))
        raise CannotRunError(
            f"The database has no table of the history ({live.where}), so there is nothing to"
            " adopt; deploy it (alembic upgrade head)."
            + (f" What it has stays: {others}." if others else "")
        )
    nearest = found.nearest if found.nearest != BASE else next(iter(list(schemas)[1:]))
    known = [name for name in history if name != BASE]
    up_to = known[: known.index(nearest) + 1]
    return Match(
        server=live.server,
        revision=nearest,
        head=known[-1],
        behind=len(known) - len(up_to),
        unverified=comparison.without_schema_change(history, up_to),
        equals=found.equals == nearest,
        foreign=drift.not_ignored(found),
    )


def _without_version_table(live: Live) -> Live:
    return replace(live, facts=read.without_version_table(live.facts))


def differences(live: Live, copy: Copy, history: History) -> Repair:
    """Find what differs from the history on `copy`, and try the SQL that undoes it.

    `copy` is a scratch database at the revision to adopt.
    """
    owned = {name for name in fingerprints.owned(history) if name != read.VERSION_TABLE}
    return trial.try_repair(copy, live, owned)


def remedy(repair: Repair, revision: str) -> str:
    """Say what to do about the differences, in sentences."""
    texts = [one for one in repair.differences if _has_text_id(one)]
    if texts:
        return (
            "Nothing was changed. This is Better Auth's schema with ids of its own making: they are"
            " text, and the history's are uuid. A schema like that cannot be adopted. Deploy an"
            " empty database (alembic upgrade head), let Better Auth make uuids there"
            ' (advanced.database.generateId: "uuid"), and copy the rows, each id mapped to a new'
            " uuid in every table that names it."
        )
    return (
        "Nothing was changed. Find out first whose a difference is: what was added may hold rows."
        f" When what the history owns is as it is at {revision}, run this again."
    )


def _has_text_id(difference: Difference) -> bool:
    return (
        difference.object == 'table "user"'
        and difference.part == "column id"
        and (difference.was or "").startswith("uuid")
        and (difference.found or "").startswith(("text", "character varying"))
    )


def stamp(
    target: URL,
    scripts: ScriptDirectory,
    revision: str,
    expected: snapshot.Snapshot,
    log: Callable[[str], None],
) -> None:
    """Record the revision in one transaction, under the deploy lock.

    `expected` is the schema at that revision with Alembic's table. What the history owns must be
    equal before the stamp, and Alembic's table after it.

    Raises:
        CannotRunError: the schema has changed since it was read, or the role may not stamp it.
        CommandError: a running deploy did not end in time.

    """
    owned = fingerprints.owned(verification.committed_history())
    try:
        with (
            connect(read.in_utf8(target)) as connection,
            hold_deploy_lock(connection, DEPLOY_TIMEOUT, log),
            connection.begin(),
        ):
            connection.exec_driver_sql(_SETTINGS)
            recorded, schema = read.recorded(connection), snapshot.read(connection)
            _require_adoptable(connection, recorded)
            if _owned(schema, owned) != _owned(expected, owned):
                raise CannotRunError(
                    f"The schema was changed while it was compared ({describe_url(target)}); run"
                    " this again."
                )
            MigrationContext.configure(connection).stamp(scripts, revision)
            _change_owner(connection)
            _set_privileges(connection, expected)
            table = {read.VERSION_TABLE}
            want = facts_of(expected, table)
            have = facts_of(snapshot.read(connection, version_table=True), table)
            if have != want:
                first = snapshot.difference(want, have).splitlines()
                raise CannotRunError(
                    f"Alembic's table would differ from the history at {revision}"
                    f" ({'; '.join(' '.join(line.split()) for line in first)}), so nothing was"
                    " stamped; if the table is empty, drop it and run this again."
                )
    except (DBAPIError, psycopg.Error) as error:
        raise CannotRunError(
            f"The revision could not be stamped: {first_error_line(error)}"
            f" ({describe_url(target)}); fix that and run this again."
        ) from error


def _owned(facts: snapshot.Snapshot, owned: Collection[str]) -> snapshot.Snapshot:
    return facts_of(read.without_version_table(facts), owned)


def _describe_recorded(live: Live, history: History) -> str:
    """Describe the recorded revision, and what to do if the schema is another revision's."""
    found = comparison.compare(live, history)
    if found.equals is not None and found.record_differs:
        return f"{comparison.sentence(found)} ({live.where}); {comparison.advice(found)}."
    return _already_adopted(live.recorded, live.where)


def _already_adopted(recorded: Recorded, where: str) -> str:
    return (
        f"The database is already at revision {', '.join(recorded.revisions)} ({where}); deploy it"
        " (alembic upgrade head), or compare it (schema drift)."
    )


def _require_adoptable(connection: Connection, recorded: Recorded) -> None:
    """Raise if the database has a revision, or if the role may not stamp it."""
    where = describe_url(connection.engine.url)
    if recorded.unreadable is not None:
        raise CannotRunError(
            f"Alembic's table exists, but cannot be read: {recorded.unreadable} ({where});"
            " connect as its owner."
        )
    if recorded.revisions:
        raise CannotRunError(_already_adopted(recorded, where))
    may_create = "SELECT has_schema_privilege(to_regnamespace('public'), 'CREATE')"
    if not connection.exec_driver_sql(may_create).scalar_one():
        raise CannotRunError(
            f"The role may not create Alembic's table in schema public ({where}); connect as the"
            " owner."
        )


def _change_owner(connection: Connection) -> None:
    owner = connection.exec_driver_sql(_NEW_OWNER).scalar_one_or_none()
    if owner is not None:
        connection.exec_driver_sql(f"ALTER TABLE public.alembic_version OWNER TO {owner}")


def _set_privileges(connection: Connection, expected: snapshot.Snapshot) -> None:
    """Give Alembic's table exactly the privileges that it has in `expected`."""
    for grantee in connection.exec_driver_sql(_GRANTEES).scalars().all():
        connection.exec_driver_sql(f"REVOKE ALL ON public.alembic_version FROM {grantee}")
    for heading, part, privileges in expected:
        granted = heading == read.VERSION_TABLE and part.startswith("grant to ")
        if granted and _PRIVILEGES.fullmatch(privileges):
            grantee = part.removeprefix("grant to ")
            connection.exec_driver_sql(f"GRANT {privileges} ON public.alembic_version TO {grantee}")
