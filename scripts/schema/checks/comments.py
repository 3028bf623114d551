"""Every table, column and function has a comment: the comments are the data dictionary."""

from sqlalchemy import URL, text

from schema.checks.result import CheckResult, Failure
from schema.postgres.connection import connect
from schema.text import pluralize

DESCRIBABLE = """
SELECT 'TABLE ' || c.oid::regclass, obj_description(c.oid, 'pg_class')
FROM pg_class AS c
WHERE c.relnamespace = to_regnamespace('public') AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND c.relname <> 'alembic_version'
UNION ALL
SELECT 'COLUMN ' || c.oid::regclass || '.' || quote_ident(a.attname),
  col_description(c.oid, a.attnum)
FROM pg_attribute AS a
JOIN pg_class AS c ON c.oid = a.attrelid
WHERE c.relnamespace = to_regnamespace('public') AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND c.relname <> 'alembic_version' AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'FUNCTION ' || p.oid::regprocedure, obj_description(p.oid, 'pg_proc')
FROM pg_proc AS p
WHERE p.pronamespace = to_regnamespace('public')
  AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = p.oid AND d.deptype = 'e')
ORDER BY 1
"""


def check(head: URL) -> CheckResult:
    """Check the comments in a database at head."""
    with connect(head) as connection:
        described = connection.execute(text(DESCRIBABLE)).all()
    failures = [
        Failure(
            f"{name} has no comment.", f"COMMENT ON {name} IS '…', and `comment` in the models."
        )
        for name, comment in described
        if not (comment or "").strip()
    ]
    return CheckResult(
        pluralize(len(described), "table, column and function", "tables, columns and functions"),
        failures,
    )
