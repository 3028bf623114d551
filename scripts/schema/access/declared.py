"""What the models declare: the access to each table, and samples of a column's values.

The models are imported when they are asked, because a checkout may hold one that cannot be.
"""

# ruff: noqa: PLC0415  # lazy imports, see above

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.access import Access, Rule
    from schema.rows.generator import Samples

BOOKKEEPING: dict[str, str] = {
    "alembic_version": "Alembic's own: which revision the database is at; no user data",
}
"""Tables without a model, with the reason why that is safe."""


def declared_accesses() -> Mapping[str, Access]:
    """Return the declared access of each table, by name."""
    from models import metadata

    return {name: found for name in metadata.tables if (found := access_of(name)) is not None}


def access_of(table: str) -> Access | None:
    """Return the declared access of a table; None if no model declares one."""
    from models import metadata
    from models.access import declared_access

    model = metadata.tables.get(table)
    return None if model is None else declared_access(model)


def kind_of(table: str) -> str:
    """Return the declared kind of a table; "" if no model declares one."""
    found = access_of(table)
    return found.kind if found else ""


def rules_of(table: str, role: str) -> tuple[Rule, ...]:
    """Return the declared rules of a role on a table."""
    found = access_of(table)
    return tuple(rule for rule in found.rules if rule.role == role) if found else ()


def condition(rules: tuple[Rule, ...], user: str, *, write: bool) -> str:
    """Return the rules as one SQL condition, for that acting user; `false` without a rule."""
    chosen = [rule for rule in rules if rule.command == "ALL" or not write]
    me = f"CAST('{user}' AS uuid)"
    return " OR ".join(f"({rule.condition.format(me=me)})" for rule in chosen) or "false"


def declared_samples() -> Samples:
    """Return the values that the models name for a column, by table and column."""
    from models import metadata

    return {
        (name, column.name): tuple(map(_as_text, column.info["samples"]))
        for name, table in metadata.tables.items()
        for column in table.columns
        if isinstance(column.info.get("samples"), Sequence)
        and not isinstance(column.info["samples"], str)
    }


def _as_text(sample: object) -> str:
    """Return a sample as PostgreSQL reads it."""
    return json.dumps(sample) if isinstance(sample, dict | list) else str(sample)
