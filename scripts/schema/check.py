"""The main job: every proof, in scratch databases on one server, in one pass."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from alembic.script import ScriptDirectory
from sqlalchemy import URL, event

from migrations import snapshot

from . import comments, history, isolation, ownership, parity, roundtrip
from .alembic_run import line, upgrade
from .beside import beside
from .database import connect, describe, statement_of
from .proof import Failure, Outcome, counted
from .repository import scripts
from .server import Server

LINT = "SQL lint"

type Tell = Callable[[str], None]
type Prove = Callable[[], Outcome]


@dataclass(frozen=True)
class Proof:
    """A proof that was tried, or, without an outcome, could not be: an earlier one failed."""

    name: str
    seconds: float = 0
    outcome: Outcome | None = None


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
        if not history.readable_line(directory):
            yield from map(Proof, ("upgrade head", *names))
            return
        if lint:
            empty = scope.enter_context(server.database())
            linted = scope.enter_context(beside("schema.lint", empty))
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
    def tried() -> isolation.Found:
        return isolation.find(head)

    def walk() -> Outcome:
        with server.database() as empty:
            return roundtrip.check(empty, directory, tell)

    def models() -> Outcome:
        with server.database() as empty:
            return parity.snapshots(migrated(), empty)

    return {
        "round trip": walk,
        "models, by Alembic": lambda: parity.autogenerate(head, directory),
        "models, by snapshot": models,
        "comments": lambda: comments.check(head),
        "ownership": lambda: ownership.check(head),
        "isolation": lambda: isolation.check(tried()),
        "generated files": lambda: parity.committed(head, directory, tried()),
    }


def _build(head: URL, directory: ScriptDirectory) -> Outcome:
    """Prove that the history builds a schema from nothing, as the first deploy does."""
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    try:
        import_module("models")
    except Exception as error:  # noqa: BLE001  # a model may raise whatever it likes
        message = f"The models cannot be imported: {describe(error)}."
        return Outcome("the models", [Failure(message, "Mend the models.")])
    failures = []
    with connect(head) as connection:
        event.listen(connection, "before_cursor_execute", count)
        try:
            upgrade(connection, directory)
        except Exception as error:  # noqa: BLE001  # a revision may raise whatever it likes
            message = f"The history does not build from nothing: {describe(error)}."
            remedy = "Mend the revision that holds it."
            failures.append(Failure(message, remedy, statement_of(error)))
    number = len(line(directory))
    covered = f"{counted(number, 'revision')}, {counted(statements, 'statement')}"
    return Outcome(covered, failures)


def _try(name: str, prove: Prove) -> Proof:
    start = time.perf_counter()
    outcome = prove()
    return Proof(name, time.perf_counter() - start, outcome)
