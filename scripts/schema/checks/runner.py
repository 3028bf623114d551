"""The main job: every proof, in scratch databases on one server, in one pass."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from alembic.script import ScriptDirectory
from schema.revisions.history import revisions_oldest_first
from schema.text import pluralize
from sqlalchemy import URL, event

from migrations import snapshot
from schema.access import probe
from schema.checks import (
    comments,
    generated_files,
    history,
    isolation,
    ownership,
    round_trip,
)
from schema.checks.result import CheckResult, Failure
from schema.checks.subprocess import start_check_process
from schema.postgres.connection import connect, describe_error, statement_of
from schema.postgres.scratch import Server
from schema.project import scripts
from schema.revisions import history
from schema.revisions.runner import upgrade

LINT = "SQL lint"

type Tell = Callable[[str], None]
type Prove = Callable[[], CheckResult]


@dataclass(frozen=True)
class Proof:
    """A proof that was tried, or, without an outcome, could not be: an earlier one failed."""

    name: str
    seconds: float = 0
    outcome: CheckResult | None = None


def check(server: Server, tell: Tell, *, lint: bool = True) -> Iterator[Proof]:
    """Try every proof, and yield each when it is done; `tell` is told what goes on meanwhile.

    Raises:
        CannotRunError: the server does not let the proofs be tried.

    """
    directory = scripts()
    yield _try("history", lambda: history.check(directory))
    with ExitStack() as scope:
        head = scope.enter_context(server.database())
        proofs = _proofs_at_head(server, directory, head, tell)
        names = [*proofs, *([LINT] if lint else [])]
        if not history.is_linear(directory):
            yield from map(Proof, ("upgrade head", *names))
            return
        if lint:
            empty = scope.enter_context(server.database())
            linted = scope.enter_context(start_check_process("schema.lint", empty))
        tell("upgrade head")
        yield (build := _try("upgrade head", lambda: _build(head, directory)))
        if build.outcome is None or build.outcome.failures:
            yield from map(Proof, names)
            return
        for name, prove in proofs.items():
            tell(name)
            yield _try(name, prove)
        if lint:
            tell(LINT)
            outcome, seconds = linted()
            yield Proof(LINT, seconds, outcome)


def _proofs_at_head(
    server: Server, directory: ScriptDirectory, head: URL, tell: Tell
) -> dict[str, Prove]:
    """Name the proofs that need a database at head, in the order in which they are tried."""

    def migrated() -> snapshot.Snapshot:
        with connect(head) as connection:
            return snapshot.read(connection)

    @cache
    def tried() -> probe.ProbeResult:
        return probe.probe(head)

    def walk() -> CheckResult:
        with server.database() as empty:
            return round_trip.check(empty, directory, tell)

    def models() -> CheckResult:
        with server.database() as empty:
            return models.snapshots(migrated(), empty)

    return {
        "round trip": walk,
        "models, by Alembic": lambda: models.autogenerate(head, directory),
        "models, by snapshot": models,
        "comments": lambda: comments.check(head),
        "ownership": lambda: ownership.check(head),
        "isolation": lambda: isolation.check(tried()),
        "generated files": lambda: generated_files.check(head, directory, tried()),
    }


def _build(head: URL, directory: ScriptDirectory) -> CheckResult:
    """Prove that the history builds a schema from nothing, as the first deploy does."""
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    try:
        import_module("models")
    except Exception as error:  # noqa: BLE001  # a model may raise whatever it likes
        message = f"The models cannot be imported: {describe_error(error)}."
        return CheckResult("the models", [Failure(message, "Mend the models.")])
    failures = []
    with connect(head) as connection:
        event.listen(connection, "before_cursor_execute", count)
        try:
            upgrade(connection, directory)
        except Exception as error:  # noqa: BLE001  # a revision may raise whatever it likes
            message = f"The history does not build from nothing: {describe_error(error)}."
            remedy = "Mend the revision that holds it."
            failures.append(Failure(message, remedy, statement_of(error)))
    number = len(revisions_oldest_first(directory))
    covered = f"{pluralize(number, 'revision')}, {pluralize(statements, 'statement')}"
    return CheckResult(covered, failures)


def _try(name: str, prove: Prove) -> Proof:
    start = time.perf_counter()
    outcome = prove()
    return Proof(name, time.perf_counter() - start, outcome)
