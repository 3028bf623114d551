"""Say which columns hold personal data.

WHY: a branch for a pull request copies users' rows. Neon masks the columns that are known to hold
secrets or personal data, and those are the ones whose comment says so; these did not.
"""

from alembic import op

revision = "29dc03b443d2"
down_revision = "7a4e1c93d2f6"
branch_labels = None
depends_on = None

COMMENTS = (
    ("account", "accountId", "The user's id at the provider"),
    ("tag", "name", "As the user spells it, in 1 to 50 characters, not all blank"),
    ("todo", "title", "What to do, in 1 to 500 characters, not all blank"),
    ("todo", "description", "More about it, in at most 10,000 characters"),
    ("user", "name", "The name shown to others"),
    ("user", "email", "Lower case; what the user signs in with"),
    ("user", "image", "The address of a picture"),
)


def upgrade() -> None:
    for table, column, comment in COMMENTS:
        personal = f"PERSONAL: {comment[0].lower()}{comment[1:]}"
        op.alter_column(table, column, comment=personal)


def downgrade() -> None:
    for table, column, comment in COMMENTS:
        op.alter_column(table, column, comment=comment)
