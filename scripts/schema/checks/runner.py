"""Run all checks in scratch databases on one server."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from importlib import import_module

from alembic.script import ScriptDirectory
from sqlalchemy import URL, event

from migrations import snapshot
from schema.access.probe import ProbeResult, probe
from schema.checks import (
    comments,
    generated_files,
    history,
    isolation,
    models,
    ownership,
    round_trip,
)
from schema.checks.check_process import start_check_process
from schema.checks.result import Check, CheckResult, Failure
from schema.postgres.connection import (
    connect,
    describe_error,
    missing_extension,
    statement_of,
)
from schema.postgres.scratch import Server
from schema.project import scripts
from schema.revisions.history import is_linear, revisions_oldest_first
from schema.revisions.runner import upgrade
from schema.text import pluralize

UPGRADE = "upgrade head"
LINT = "SQL lint"

type Progress = Callable[[str], None]


def run_checks(server: Server, progress: Progress, *, lint: bool = True) -> Iterator[Check]:
    """Yield each check when it is done; `progress` is called with the name of the next one.

    Raises:
        CannotRunError: the checks cannot run on this server.

    """
    directory = scripts()
    yield _timed("history", lambda: history.check(directory))
    with ExitStack() as scope:
        head = scope.enter_context(server.database())
        at_head = _checks_at_head(server, directory, head, progress)
        names = [*at_head, *([LINT] if lint else [])]
        if not is_linear(directory):
            yield from map(Check, (UPGRADE, *names))
            return
        if lint:
            empty = scope.enter_context(server.database())
            lint_result = scope.enter_context(start_check_process("schema.checks.sql_lint", empty))
        progress(UPGRADE)
        yield (build := _timed(UPGRADE, lambda: _build(head, directory)))
        if not build.passed:
            yield from map(Check, names)
            return
        for name, run in at_head.items():
            progress(name)
            yield _timed(name, run)
        if lint:
            progress(LINT)
            result, seconds = lint_result()
            yield Check(LINT, seconds, result)


def _checks_at_head(
    server: Server, directory: ScriptDirectory, head: URL, progress: Progress
) -> dict[str, Callable[[], CheckResult]]:
    """Return the checks that run after the upgrade, in order: name and function."""

    @cache
    def probed() -> ProbeResult:
        return probe(head)

    def walk() -> CheckResult:
        with server.database() as empty:
            return round_trip.check(empty, directory, progress)

    def create_all() -> CheckResult:
        with connect(head) as connection:
            migrated = snapshot.read(connection)
        with server.database() as empty:
            return models.create_all(migrated, empty)

    return {
        "round trip": walk,
        "autogenerate": lambda: models.autogenerate(head, directory),
        "create_all": create_all,
        "comments": lambda: comments.check(head),
        "ownership": lambda: ownership.check(head),
        "isolation": lambda: isolation.check(probed()),
        "generated files": lambda: generated_files.check(head, directory, probed().accesses),
    }


def _build(head: URL, directory: ScriptDirectory) -> CheckResult:
    """Check that the history can upgrade an empty database, as the first deploy does."""
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    try:
        import_module("models")
    except Exception as error:  # noqa: BLE001  # a model may raise whatever it likes
        message = f"The models cannot be imported: {describe_error(error)}."
        return CheckResult("the models", [Failure(message, "Fix the models.")])
    failures = []
    with connect(head) as connection:
        event.listen(connection, "before_cursor_execute", count)
        try:
            upgrade(connection, directory)
        except Exception as error:  # noqa: BLE001  # a revision may raise whatever it likes
            message = f"The upgrade of an empty database fails: {describe_error(error)}."
            statement = statement_of(error)
            what = "the revision that contains the statement" if statement else "that file"
            remedy = missing_extension(error) or f"Fix {what}."
            failures.append(Failure(message, remedy, statement))
    number = len(revisions_oldest_first(directory))
    covered = f"{pluralize(number, 'revision')}, {pluralize(statements, 'statement')}"
    return CheckResult(covered, failures)


def _timed(name: str, run: Callable[[], CheckResult]) -> Check:
    start = time.perf_counter()
    result = run()
    return Check(name, time.perf_counter() - start, result)
