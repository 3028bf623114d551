"""What the review and squawk find in the corpus: `python -m tests.review.figures [--postgres 16]`.

Each migration becomes revisions of a history of its own, one for each transaction, with downgrades
where SQL can be written that restores the schema. The review runs them as it runs a pull request's.
"""

import argparse
import json
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from sqlalchemy import URL

from migrations import snapshot
from schema.ddl.apply import Sessions, own_names, reach
from schema.postgres.connection import connect
from schema.postgres.installation import VERSIONS
from schema.postgres.scratch import Server, open_server
from schema.review import findings
from schema.review.access.changes import changes
from schema.review.access.trial import platform_roles, read_access
from schema.review.execution.databases import Ground, session
from schema.review.execution.walk import walk
from schema.review.policy import Policy
from schema.review.pull_request import PullRequest
from schema.review.result import Finding
from tests.review.access import broken
from tests.review.ground import Ground as Base
from tests.review.ground import prepared
from tests.review.history import IRREVERSIBLE, Revision, executing, write_history
from tests.review.labels import HAZARDS, Migration, Transaction, migrations, script, statements

HAND_WRITTEN = {
    "correct a few rows": ("UPDATE account SET phone = substr(phone, 4) WHERE id < 10",),
    "rename a table and leave a view": ("DROP VIEW audit", "ALTER TABLE audit_log RENAME TO audit"),
}
"""Downgrades of rows and of a rename, which follow from no schema."""


@dataclass(frozen=True)
class Verdict:
    """What was found in a migration."""

    kinds: frozenset[str]
    """The kinds of findings; `compatibility` and the like are among them."""
    blocked: bool


def _reverse(server: Server, url: URL, before: snapshot.Snapshot) -> list[str] | None:
    """Return SQL that restores a schema; None if there is none."""
    assert server.superuser is not None
    with server.database(url) as copy:
        superuser = server.superuser.set(database=copy.database)
        with connect(copy) as owner, connect(superuser, autocommit=True) as other:
            reached = reach(Sessions(owner, other), before, own_names(owner))
            owner.commit()
            done = snapshot.read(owner, version_table=True) == before
            owner.rollback()
        # The guards are for those who paste the SQL: they refuse to drop what holds rows.
        found = [sql for step in reached.taken for sql in step.statements]
        return [sql for sql in found if not sql.startswith("DO ")] if done else None


@contextmanager
def history(server: Server, base: URL, migration: Migration) -> Iterator[PullRequest]:
    """Write the migration as revisions, and read them."""
    with tempfile.TemporaryDirectory() as name, server.database(base) as url:
        by_hand = HAND_WRITTEN.get(migration.name, ())
        revisions = [_revision(server, url, one, by_hand) for one in migration.transactions]
        yield write_history(Path(name), revisions)


def _revision(
    server: Server, url: URL, transaction: Transaction, by_hand: Sequence[str]
) -> Revision:
    """Make a revision of a transaction, and apply it to the database in which that is tried."""
    up = executing(*transaction.statements, alone=transaction.alone)
    with connect(url) as connection:
        before = snapshot.read(connection, version_table=True)
    try:
        with session(url) as opened:
            _run(opened, transaction)
    except psycopg.Error:
        return Revision(up, [IRREVERSIBLE])
    back = by_hand or _reverse(server, url, before)
    return Revision(up, [IRREVERSIBLE] if back is None else executing(*back))


def _run(opened: psycopg.Connection[tuple[object, ...]], transaction: Transaction) -> None:
    if transaction.alone:
        opened.execute(transaction.statements[0].encode())
        return
    with opened.transaction():
        for sql in transaction.statements:
            opened.execute(sql.encode())


def reviewed(server: Server, base: Base, small: URL, migration: Migration) -> Verdict:
    """Review one migration."""
    with history(server, base.bare, migration) as pull_request:
        with server.database(base.full) as url:
            walked = walk(Ground(url, generated=True), pull_request, lambda _step: None)
        found = list(findings.of_walk(walked, pull_request.new, Policy()))
        if walked.failure is None:
            found += _tried(server, small, migration)
            found += _application(server, base.full, migration)
    if "no" not in migration.labels(base.version).get("reversible", ()):
        # Its author could have written the downgrade for which there is no SQL here.
        found = [one for one in found if one.kind != "irreversible"]
    kinds = frozenset(one.kind for one in found)
    return Verdict(kinds, any(one.blocking for one in found))


def _tried(server: Server, small: URL, migration: Migration) -> Iterator[Finding]:
    """Try access and what the application executes, before and after."""
    assert server.superuser is not None
    settings = {"app.account": ["1", "2"]}
    with server.database(small) as url:
        superuser = server.superuser.set(database=url.database)
        with session(superuser) as opened:
            platform = platform_roles(opened)
            before = read_access(opened, settings, platform)
        with session(url) as opened:
            for transaction in migration.transactions:
                _run(opened, transaction)
        with session(superuser) as opened:
            after = read_access(opened, settings, platform)
    yield from findings.of_access(changes(before, after), sorted(after.unsafe - before.unsafe))


def _application(server: Server, full: URL, migration: Migration) -> Iterator[Finding]:
    """Try what the application executes, which has no models here."""
    with server.database(full) as url, session(url) as opened:
        for transaction in migration.transactions:
            _run(opened, transaction)
        for sql in broken(opened):
            yield Finding("breaks", "application", "", sql)


@contextmanager
def small_base(server: Server) -> Iterator[URL]:
    """Make the corpus's schema with few rows, for what depends on none."""
    text = script("base.sql")
    for number in ("20000", "40000", "19999"):
        text = text.replace(f"generate_series(1, {number})", "generate_series(1, 100)")
    with server.database() as url:
        with session(url) as opened:
            for sql in statements(text):
                opened.execute(sql.encode())
        yield url


def linted(migration: Migration, version: int) -> bool:
    """Whether squawk alone, with its own rules, finds something in the migration."""
    pieces = []
    for transaction in migration.transactions:
        sql = "\n".join(f"{one};" for one in transaction.statements)
        pieces.append(sql if transaction.alone else f"BEGIN;\n{sql}\nCOMMIT;")
    done = subprocess.run(
        [
            Path(sysconfig.get_path("scripts")) / "squawk", "--config=/dev/null", "--reporter=json",
            f"--pg-version={version}.0",
            "--exclude=prefer-robust-stmts,require-lock-timeout,require-statement-timeout,require-timeout-settings",
            "--stdin-filepath=migration.sql",
        ],
        input="\n".join(pieces), capture_output=True, text=True, check=False,
    )  # fmt: skip  # one line per group
    return bool(json.loads(done.stdout))


def agrees(migration: Migration, verdict: Verdict, version: int) -> bool:
    """Whether a hazard has a finding of one of its kinds, and a safe migration none."""
    labels = migration.labels(version)
    kinds = {kind for kind, (label, _) in HAZARDS.items() if labels.get(label)}
    return bool(verdict.kinds & kinds) if migration.hazard else not verdict.kinds


@dataclass
class Figures:
    """How often one of the two is right."""

    found: int = 0
    missed: Sequence[str] = ()
    alarms: Sequence[str] = ()

    def add(self, migration: Migration, *, says: bool) -> None:
        """Count one migration."""
        if migration.hazard and says:
            self.found += 1
        elif migration.hazard:
            self.missed = [*self.missed, f"{migration.name} ({migration.hazard})"]
        elif says:
            self.alarms = [*self.alarms, migration.name]

    def line(self, name: str, hazards: int, safe: int) -> str:
        """Say them in one line."""
        return (
            f"{name}: {self.found} of {hazards} hazards found, {len(self.missed)} missed,"
            f" {len(self.alarms)} false alarms on {safe} safe migrations\n"
        )


def main() -> int:
    """Print the figures, each miss and each false alarm; 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--postgres", default=str(VERSIONS[0]), help="major version, or a folder")
    parser.add_argument("name", nargs="*", help="only migrations whose name contains one of these")
    chosen = parser.parse_args()
    review, squawk = Figures(), Figures()
    counts: Counter[bool] = Counter()
    with open_server(None, chosen.postgres, lambda _step: None) as server:
        with prepared(server) as base, small_base(server) as small:
            for migration in migrations():
                known = not chosen.name or any(part in migration.name for part in chosen.name)
                if not known or migration.since > base.version:
                    continue
                counts[migration.hazard is not None] += 1
                verdict = reviewed(server, base, small, migration)
                right = agrees(migration, verdict, base.version)
                review.add(migration, says=right is bool(migration.hazard))
                squawk.add(migration, says=linted(migration, base.version))
                if not right:
                    sys.stdout.write(
                        f"{migration.name}: {migration.hazard or 'safe'}, the review says"
                        f" {', '.join(sorted(verdict.kinds)) or 'safe'}\n"
                    )
                    sys.stdout.flush()
            sys.stdout.write(f"PostgreSQL {server.version}\n")
            for name, figures in (("review", review), ("squawk alone", squawk)):
                sys.stdout.write(figures.line(name, counts[True], counts[False]))
    return 1 if review.missed or review.alarms else 0


if __name__ == "__main__":
    sys.exit(main())
