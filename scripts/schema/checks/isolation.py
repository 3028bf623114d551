"""User isolation: each role can access exactly the rows that it needs."""

from collections.abc import Iterator

from migrations.postgres import first_error_line
from schema.access.probe import FORMS, ROLES, ProbeResult, Scope
from schema.access.sample_rows import PUBLIC
from schema.checks.result import CheckResult, Failure
from schema.postgres.connection import statement_of
from schema.roles import BETTER_AUTH, BETTER_AUTH_TABLES
from schema.text import pluralize

REMEDY = "Compare the table's policies and grants with those of table todo."

READING = frozenset({"SELECT", "FETCH from a cursor", "COPY … TO"})
NEVER = frozenset({"COPY … FROM", "TRUNCATE"})


def expected(role: str, table: str, form: str) -> Scope:
    """Return the scope that a role needs; less access is a failure, and so is more."""
    if form in NEVER or role == PUBLIC:
        return "none"
    if role == BETTER_AUTH:
        return "all" if table in BETTER_AUTH_TABLES else "none"
    if table in BETTER_AUTH_TABLES:
        return "own" if table == "user" and form in READING else "none"
    return "own"


def check(found: ProbeResult) -> CheckResult:
    """Compare the probe's accesses with the expected ones."""
    if found.error is not None:
        message = f"The sample rows cannot be inserted: {first_error_line(found.error)}."
        failure = Failure(message, REMEDY, statement_of(found.error))
        return CheckResult("rows of two users", [failure])
    covered = (
        f"{pluralize(found.tables, 'table')}, {len(ROLES)} roles, {len(FORMS)} forms:"
        f" {pluralize(found.statements, 'statement')}"
    )
    leaks = [Failure(sentence, REMEDY) for sentence in found.leaks]
    return CheckResult(covered, [*_unexpected(found), *leaks])


def _unexpected(found: ProbeResult) -> Iterator[Failure]:
    whose = {"none": "no row", "own": "the acting user's rows", "all": "all users' rows"}
    for access in found.accesses:
        wanted = expected(access.role, access.table, access.form)
        if access.scope != wanted:
            message = (
                f"{access.form} on {access.table} as {access.role} reaches {whose[access.scope]};"
                f" it should reach {whose[wanted]}."
            )
            yield Failure(message, REMEDY)
