"""User isolation: each role can access exactly the rows that the models declare."""

from collections.abc import Iterator

from migrations.postgres import first_error_line
from schema.access.declared import rules_of
from schema.access.probe import FORMS, ROLES, Difference, ProbeResult
from schema.checks.result import CheckResult, Failure
from schema.postgres.connection import statement_of
from schema.text import pluralize

REMEDY = (
    "Make the table's row security, policies and grants what its model declares; where create_all"
    " fails too, its difference shows what is missing (+)."
)

_SHOWN = 3
"""The forms of statement that a failure names."""


def check(found: ProbeResult) -> CheckResult:
    """Compare what the probe reached with the models' declarations."""
    if found.error is not None:
        why = first_error_line(found.error)
        message = f"The rows to try statements on cannot be made: {why}."
        remedy = "Fix what the statement names: the rows are made by the tables' owner."
        failure = Failure(message, remedy, statement_of(found.error))
        return CheckResult("generated rows", [failure])
    covered = (
        f"{pluralize(found.tables, 'table')}, {pluralize(found.rows, 'row')},"
        f" {pluralize(found.users, 'user')}, {len(ROLES)} roles, {len(FORMS)} forms:"
        f" {pluralize(found.statements, 'statement')}"
    )
    return CheckResult(
        covered,
        [
            *map(_empty, found.shortages),
            *map(_difference, found.differences),
            *_without_user(found.leaks),
        ],
    )


def _empty(shortage: str) -> Failure:
    remedy = "Give the table a primary key, or name samples on its model's columns."
    return Failure(f"Nothing can be tried: {shortage}", remedy)


def _difference(one: Difference) -> Failure:
    """Describe what a role reaches on a table, once for all forms of statement."""
    forms = ", ".join(one.forms[:_SHOWN])
    if len(one.forms) > _SHOWN:
        forms += f" and {len(one.forms) - _SHOWN} more forms"
    declared = " or ".join(
        f"{rule.condition.format(me='the acting user')} ({_verbs(rule.command)})"
        for rule in rules_of(one.table, one.role)
    )
    if one.excess:
        message = f"{one.role} reaches rows of {one.table} that it must not reach, by {forms}"
    else:
        message = f"{one.role} does not reach the rows of {one.table} that it needs, by {forms}"
        message += f" ({one.refusal})" if one.refusal else ""
    return Failure(f"{message}. The model declares: {declared or 'no access'}.", REMEDY)


def _verbs(command: str) -> str:
    return "read and write" if command == "ALL" else "read"


def _without_user(leaks: tuple[str, ...]) -> Iterator[Failure]:
    for sentence in leaks:
        yield Failure(
            sentence, "Make policies compare with (SELECT app_user_id()), and it NULL for nobody."
        )
