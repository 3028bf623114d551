"""File todos under tags.

WHY: users group their todos by words of their own. A tag is owned like a todo. What links the two
references both by owner, `(user_id, todo_id)` and `(user_id, tag_id)`: no role, not even a
superuser, can hang one user's tag on another user's todo.

A tag's name is unique within its user whatever its case. That takes a column, not an index on an
expression: lower() is not leakproof, so under row security it would be evaluated row by row.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2d6f90c4e7a3"
down_revision = "b93a7e1d5f68"
branch_labels = None
depends_on = None

TIMESTAMPTZ = postgresql.TIMESTAMP(timezone=True)
NOW = sa.text("CURRENT_TIMESTAMP")


def isolate(table: str) -> None:
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"""
        CREATE POLICY {table}_owner ON {table} TO todo_app
        USING (user_id = (SELECT app_user_id()))
        WITH CHECK (user_id = (SELECT app_user_id()))
    """)
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO todo_app")


def upgrade() -> None:
    op.create_table(
        "tag",
        sa.Column("user_id", sa.Uuid(), nullable=False, comment="The user who owns this row"),
        sa.Column(
            "id",
            sa.Uuid(),
            server_default=sa.text("uuid_v7()"),
            nullable=False,
            comment="Ordered by time of creation; unique within its user",
        ),
        sa.Column(
            "name",
            sa.Text(),
            nullable=False,
            comment="As the user spells it, in 1 to 50 characters, not all blank",
        ),
        sa.Column(
            "name_lower",
            sa.Text(),
            sa.Computed("lower(name)", persisted=True),
            nullable=False,
            comment="Lower case; unique within its user, and what to search by",
        ),
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
        sa.PrimaryKeyConstraint("user_id", "id", name=op.f("tag_pkey")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user.id"], name=op.f("tag_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.UniqueConstraint("user_id", "name_lower", name=op.f("tag_user_id_name_lower_key")),
        sa.CheckConstraint(r"name ~ '\S'", name=op.f("tag_name_not_blank_check")),
        sa.CheckConstraint("char_length(name) <= 50", name=op.f("tag_name_length_check")),
        comment="A word that its user files todos under",
    )
    op.execute("""
        CREATE TRIGGER tag_set_updated_at BEFORE UPDATE ON tag
        FOR EACH ROW EXECUTE FUNCTION set_updated_at()
    """)
    op.create_table(
        "todo_tag",
        sa.Column("user_id", sa.Uuid(), nullable=False, comment="The user who owns this row"),
        sa.Column("todo_id", sa.Uuid(), nullable=False, comment="What is filed"),
        sa.Column("tag_id", sa.Uuid(), nullable=False, comment="What it is filed under"),
        sa.PrimaryKeyConstraint("user_id", "todo_id", "tag_id", name=op.f("todo_tag_pkey")),
        sa.ForeignKeyConstraint(
            ["user_id", "todo_id"],
            ["todo.user_id", "todo.id"],
            name=op.f("todo_tag_user_id_todo_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id", "tag_id"],
            ["tag.user_id", "tag.id"],
            name=op.f("todo_tag_user_id_tag_id_fkey"),
            ondelete="CASCADE",
        ),
        comment="A todo filed under a tag of the same user",
    )
    # A tag's todos, newest first; it also serves the deletion of a tag.
    op.create_index(
        op.f("todo_tag_user_id_tag_id_todo_id_idx"), "todo_tag", ["user_id", "tag_id", "todo_id"]
    )
    isolate("tag")
    isolate("todo_tag")


def downgrade() -> None:
    op.drop_table("todo_tag")
    op.drop_table("tag")
