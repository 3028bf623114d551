"""Let the database name a row's user.

WHY: an INSERT without `user_id` was refused, although the transaction says for whom it acts. With
this default an application need not name the user again, and so cannot name the wrong one.
"""

from alembic import op

revision = "0e6b52f3a9c4"
down_revision = "29dc03b443d2"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE tag ALTER COLUMN user_id SET DEFAULT app_user_id()")
    op.execute("ALTER TABLE todo ALTER COLUMN user_id SET DEFAULT app_user_id()")
    op.execute("ALTER TABLE todo_tag ALTER COLUMN user_id SET DEFAULT app_user_id()")


def downgrade() -> None:
    op.execute("ALTER TABLE todo_tag ALTER COLUMN user_id DROP DEFAULT")
    op.execute("ALTER TABLE todo ALTER COLUMN user_id DROP DEFAULT")
    op.execute("ALTER TABLE tag ALTER COLUMN user_id DROP DEFAULT")
