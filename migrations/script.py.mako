<%
def literal(value):
    if value is None or isinstance(value, str):
        return "None" if value is None else '"%s"' % value
    return "(" + ", ".join(literal(v) for v in value) + ",)"
%>"""${message}

WHY: say what needs this change, and what goes wrong without it.

The deploy rule: every revision runs while the application's previous release is still serving.
  1. Add what the next release needs; remove only what no running release uses.
  2. A new column is nullable, or has a constant default.
  3. NOT NULL, CHECK and FOREIGN KEY: add NOT VALID here, VALIDATE in the next revision.
  4. An index on a table with rows: CONCURRENTLY, in a revision of its own.
  5. Many rows: batches, in a revision of their own, never together with DDL.
  6. A table is owned, Better Auth's, or listed with a reason.
  7. `downgrade` reverts exactly what `upgrade` did, or raises with the reason why it cannot.
  8. Import only alembic, sqlalchemy and the standard library: models change, history does not.
Delete this list when you have followed it; keep the WHY.
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${literal(up_revision)}
down_revision = ${literal(down_revision)}
branch_labels = ${literal(branch_labels)}
depends_on = ${literal(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
