"""Create todo.

WHY: todos are what the application is for, and each belongs to one user. The key leads with that
user: every access is scoped by it, children can reference a todo by its owner, and no unique index
answers whether another user's id exists. `id` is a version 7 uuid, so that the key alone serves
newest-first pages; PostgreSQL 16 and 17 have no such function, hence `uuid_v7`.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "8e5d2f6c3b04"
down_revision = "4c1f0b7a9d21"
branch_labels = None
depends_on = None

TIMESTAMPTZ = postgresql.TIMESTAMP(timezone=True)
NOW = sa.text("CURRENT_TIMESTAMP")

# The body's blanks are part of the schema.
SET_UPDATED_AT = """
CREATE FUNCTION set_updated_at() RETURNS trigger
LANGUAGE plpgsql SET search_path = ''
AS $$
BEGIN
  NEW.updated_at := CURRENT_TIMESTAMP;
  RETURN NEW;
END
$$
"""


def upgrade() -> None:
    # RFC 9562, 5.7 and 6.2 method 3: milliseconds, version, fraction of the millisecond, random.
    op.execute("""
        CREATE FUNCTION uuid_v7() RETURNS uuid
        LANGUAGE sql VOLATILE PARALLEL SAFE
        RETURN (
            SELECT
                encode(
                    int8send((t.us / 1000) << 16 | 28672 | (t.us % 1000) * 4096 / 1000)
                    || substring(uuid_send(gen_random_uuid()) FROM 9),
                    'hex'
                )::uuid
            FROM (SELECT (extract(EPOCH FROM clock_timestamp()) * 1000000)::bigint AS us) AS t
        )
    """)
    op.execute("""
        COMMENT ON FUNCTION uuid_v7() IS
        'A time-ordered version 7 uuid; uuidv7() of PostgreSQL 18, for 16 and 17 too'
    """)
    op.execute("REVOKE ALL ON FUNCTION uuid_v7() FROM PUBLIC")
    op.create_table(
        "todo",
        sa.Column("user_id", sa.Uuid(), nullable=False, comment="The user who owns this row"),
        sa.Column(
            "id",
            sa.Uuid(),
            server_default=sa.text("uuid_v7()"),
            nullable=False,
            comment="Ordered by time of creation; unique within its user",
        ),
        sa.Column(
            "title",
            sa.Text(),
            nullable=False,
            comment="What to do, in 1 to 500 characters, not all blank",
        ),
        sa.Column("description", sa.Text(), comment="More about it, in at most 10,000 characters"),
        sa.Column("due_at", TIMESTAMPTZ, comment="When it should be done"),
        sa.Column("completed_at", TIMESTAMPTZ, comment="When it was done; NULL while it is open"),
        sa.Column(
            "created_at",
            TIMESTAMPTZ,
            server_default=NOW,
            nullable=False,
            comment="When it was written down",
        ),
        sa.Column(
            "updated_at",
            TIMESTAMPTZ,
            server_default=NOW,
            nullable=False,
            comment="Last change, kept by a trigger",
        ),
        sa.PrimaryKeyConstraint("user_id", "id", name=op.f("todo_pkey")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user.id"], name=op.f("todo_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.CheckConstraint(r"title ~ '\S'", name=op.f("todo_title_not_blank_check")),
        sa.CheckConstraint("char_length(title) <= 500", name=op.f("todo_title_length_check")),
        sa.CheckConstraint(
            "char_length(description) <= 10000", name=op.f("todo_description_length_check")
        ),
        comment="A thing that its user means to do",
    )
    # A user's open todos, newest first.
    op.create_index(
        op.f("todo_open_idx"),
        "todo",
        ["user_id", "id"],
        postgresql_where=sa.text("completed_at IS NULL"),
    )
    # A user's open todos by due date; id makes a page's last row a place to go on from.
    op.create_index(
        op.f("todo_due_idx"),
        "todo",
        ["user_id", "due_at", "id"],
        postgresql_where=sa.text("completed_at IS NULL AND due_at IS NOT NULL"),
    )
    op.execute(SET_UPDATED_AT)
    op.execute("""
        COMMENT ON FUNCTION set_updated_at() IS
        'Trigger: updated_at is the time of the last change, whoever wrote it'
    """)
    op.execute("REVOKE ALL ON FUNCTION set_updated_at() FROM PUBLIC")
    op.execute("""
        CREATE TRIGGER todo_set_updated_at BEFORE UPDATE ON todo
        FOR EACH ROW EXECUTE FUNCTION set_updated_at()
    """)


def downgrade() -> None:
    op.drop_table("todo")
    op.execute("DROP FUNCTION set_updated_at()")
    op.execute("DROP FUNCTION uuid_v7()")
