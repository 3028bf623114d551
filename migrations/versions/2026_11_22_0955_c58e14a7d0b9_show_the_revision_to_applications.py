"""Show the revision to applications.

WHY: an application asks at its start whether the database is at a revision that it works with.
Alembic's own table says so, and holds nothing else; without this, only its owner can read it.
"""

from alembic import op

revision = "c58e14a7d0b9"
down_revision = "2d6f90c4e7a3"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("GRANT SELECT ON alembic_version TO todo_app, todo_auth")


def downgrade() -> None:
    op.execute("REVOKE SELECT ON alembic_version FROM todo_app, todo_auth")
