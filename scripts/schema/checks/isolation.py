"""The database keeps users apart: what each role can do on rows is what it needs."""

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
    """What a role needs: what it may do beyond that is a defect, and what it may not do, too."""
    if form in NEVER or role == PUBLIC:
        return "none"
    if role == BETTER_AUTH:
        return "all" if table in BETTER_AUTH_TABLES else "none"
    if table in BETTER_AUTH_TABLES:
        return "own" if table == "user" and form in READING else "none"
    return "own"


def check(found: ProbeResult) -> CheckResult:
    """Check that each role can access exactly the rows that it needs, with every statement."""
    if found.error is not None:
        message = f"The rows of two users cannot be written: {first_error_line(found.error)}."
        failure = Failure(message, REMEDY, statement_of(found.error))
        return CheckResult("rows of two users", [failure])
    covered = (
        f"{pluralize(found.tables, 'table')}, {len(ROLES)} roles, {len(FORMS)} forms:"
        f" {pluralize(found.statements, 'statement')}"
    )
    leaks = [Failure(sentence, REMEDY) for sentence in found.leaks]
    return CheckResult(covered, [*_unexpected(found), *leaks])


def _unexpected(found: ProbeResult) -> Iterator[Failure]:
    whose = {"none": "no row", "own": "the acting user's rows", "all": "everybody's rows"}
    for access in found.accesses:
        wanted = expected(access.role, access.table, access.form)
        if access.scope != wanted:
            message = (
                f"{access.form} on {access.table} as {access.role} reaches {whose[access.scope]};"
                f" it should reach {whose[wanted]}."
            )
            yield Failure(message, REMEDY)
