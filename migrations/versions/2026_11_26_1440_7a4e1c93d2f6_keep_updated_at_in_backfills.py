"""Keep updated_at in backfills.

WHY: a backfill is no change by a user, but its UPDATE moved every row's `updated_at`, and no
downgrade brings the old times back. A revision may now set `app.keep_updated_at`. The trigger heeds
it only for the table's owner: the application's roles can set it, too, and must not forge a time.
"""

from alembic import op

revision = "7a4e1c93d2f6"
down_revision = "c58e14a7d0b9"
branch_labels = None
depends_on = None

# The body's blanks are part of the schema.
KEEPS = """
CREATE OR REPLACE FUNCTION set_updated_at() RETURNS trigger
LANGUAGE plpgsql SET search_path = ''
AS $$
BEGIN
  IF pg_catalog.current_setting('app.keep_updated_at', true) = 'on' THEN
    IF pg_catalog.pg_has_role(
      (SELECT c.relowner FROM pg_catalog.pg_class AS c WHERE c.oid = TG_RELID), 'USAGE'
    ) THEN
      RETURN NEW;
    END IF;
  END IF;
  NEW.updated_at := CURRENT_TIMESTAMP;
  RETURN NEW;
END
$$
"""

ALWAYS_SETS = """
CREATE OR REPLACE FUNCTION set_updated_at() RETURNS trigger
LANGUAGE plpgsql SET search_path = ''
AS $$
BEGIN
  NEW.updated_at := CURRENT_TIMESTAMP;
  RETURN NEW;
END
$$
"""


def upgrade() -> None:
    op.execute(KEEPS)


def downgrade() -> None:
    op.execute(ALWAYS_SETS)
