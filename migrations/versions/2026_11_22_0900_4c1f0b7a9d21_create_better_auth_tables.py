"""Create Better Auth's tables.

WHY: Better Auth keeps its users, sessions, accounts and verifications in the database that owns
the todos, so that a todo can reference its user. Table and column names are Better Auth's own
(camelCase), so that an application maps no fields; its one setting is `generateId: "uuid"`.
Unlike its own migration, ids are uuids, accounts are unique by provider, e-mails are held to
lower case (it looks users up that way), and expired rows are found by index.
"""

import uuid

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "4c1f0b7a9d21"
down_revision = None
branch_labels = None
depends_on = None

TIMESTAMPTZ = postgresql.TIMESTAMP(timezone=True)
NOW = sa.text("CURRENT_TIMESTAMP")


def key() -> sa.Column[uuid.UUID]:
    return sa.Column(
        "id",
        sa.Uuid(),
        server_default=sa.text("gen_random_uuid()"),
        nullable=False,
        comment="Random, so that it cannot be guessed",
    )


def upgrade() -> None:
    op.create_table(
        "user",
        key(),
        sa.Column("name", sa.Text(), nullable=False, comment="The name shown to others"),
        sa.Column(
            "email", sa.Text(), nullable=False, comment="Lower case; what the user signs in with"
        ),
        sa.Column(
            "emailVerified",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether the user has proven to receive mail at email",
        ),
        sa.Column("image", sa.Text(), comment="The address of a picture"),
        sa.Column("createdAt", TIMESTAMPTZ, server_default=NOW, nullable=False, comment="Sign-up"),
        sa.Column(
            "updatedAt",
            TIMESTAMPTZ,
            server_default=NOW,
            nullable=False,
            comment="Last change, kept by Better Auth",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("user_pkey")),
        sa.UniqueConstraint("email", name=op.f("user_email_key")),
        sa.CheckConstraint("email = lower(email)", name=op.f("user_email_lower_check")),
        comment="A person who can sign in; written by Better Auth",
    )
    op.create_table(
        "session",
        key(),
        sa.Column(
            "expiresAt", TIMESTAMPTZ, nullable=False, comment="From then on the session is void"
        ),
        sa.Column(
            "token", sa.Text(), nullable=False, comment="SECRET: whoever holds it is signed in"
        ),
        sa.Column("createdAt", TIMESTAMPTZ, server_default=NOW, nullable=False, comment="Sign-in"),
        sa.Column(
            "updatedAt", TIMESTAMPTZ, nullable=False, comment="Last change, kept by Better Auth"
        ),
        sa.Column("ipAddress", sa.Text(), comment="PERSONAL: where the sign-in came from"),
        sa.Column("userAgent", sa.Text(), comment="PERSONAL: the browser's own name"),
        sa.Column("userId", sa.Uuid(), nullable=False, comment="Who is signed in"),
        sa.PrimaryKeyConstraint("id", name=op.f("session_pkey")),
        sa.UniqueConstraint("token", name=op.f("session_token_key")),
        sa.ForeignKeyConstraint(
            ["userId"], ["user.id"], name=op.f("session_userId_fkey"), ondelete="CASCADE"
        ),
        comment="A signed-in browser or device; Better Auth's alone",
    )
    op.create_index(op.f("session_userId_idx"), "session", ["userId"])
    op.create_index(op.f("session_expiresAt_idx"), "session", ["expiresAt"])
    op.create_table(
        "account",
        key(),
        sa.Column("accountId", sa.Text(), nullable=False, comment="The user's id at the provider"),
        sa.Column(
            "providerId", sa.Text(), nullable=False, comment="credential, or the provider's name"
        ),
        sa.Column("userId", sa.Uuid(), nullable=False, comment="Who signs in with it"),
        sa.Column("accessToken", sa.Text(), comment="SECRET: the provider's access token"),
        sa.Column("refreshToken", sa.Text(), comment="SECRET: the provider's refresh token"),
        sa.Column("idToken", sa.Text(), comment="SECRET: the provider's identity token"),
        sa.Column("accessTokenExpiresAt", TIMESTAMPTZ, comment="From then on accessToken is void"),
        sa.Column(
            "refreshTokenExpiresAt", TIMESTAMPTZ, comment="From then on refreshToken is void"
        ),
        sa.Column("scope", sa.Text(), comment="What the provider's tokens allow"),
        sa.Column("password", sa.Text(), comment="SECRET: the password's hash"),
        sa.Column(
            "createdAt", TIMESTAMPTZ, server_default=NOW, nullable=False, comment="First sign-in"
        ),
        sa.Column(
            "updatedAt", TIMESTAMPTZ, nullable=False, comment="Last change, kept by Better Auth"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("account_pkey")),
        sa.UniqueConstraint(
            "providerId", "accountId", name=op.f("account_providerId_accountId_key")
        ),
        sa.ForeignKeyConstraint(
            ["userId"], ["user.id"], name=op.f("account_userId_fkey"), ondelete="CASCADE"
        ),
        comment="One way to sign in: a password or a provider; Better Auth's alone",
    )
    op.create_index(op.f("account_userId_idx"), "account", ["userId"])
    op.create_table(
        "verification",
        key(),
        sa.Column(
            "identifier", sa.Text(), nullable=False, comment="SECRET: what is proven, and by whom"
        ),
        sa.Column("value", sa.Text(), nullable=False, comment="SECRET: what must be shown back"),
        sa.Column(
            "expiresAt", TIMESTAMPTZ, nullable=False, comment="From then on the proof is void"
        ),
        sa.Column("createdAt", TIMESTAMPTZ, server_default=NOW, nullable=False, comment="Sent"),
        sa.Column(
            "updatedAt",
            TIMESTAMPTZ,
            server_default=NOW,
            nullable=False,
            comment="Last change, kept by Better Auth",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("verification_pkey")),
        comment="A secret sent to someone, to be shown back in time; Better Auth's alone",
    )
    op.create_index(op.f("verification_identifier_idx"), "verification", ["identifier"])
    op.create_index(op.f("verification_expiresAt_idx"), "verification", ["expiresAt"])


def downgrade() -> None:
    op.drop_table("verification")
    op.drop_table("account")
    op.drop_table("session")
    op.drop_table("user")
