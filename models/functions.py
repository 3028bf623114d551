"""The functions that defaults, triggers and policies call; PUBLIC cannot execute them.

The names in a RETURN body are resolved when the function is created, so it needs no search_path
setting, which would cost more than the call. A plpgsql body is text and needs it.
"""

from sqlalchemy import Connection, MetaData, event, text

from .base import metadata
from .roles import APPLICATION

ACTING_USER = "(SELECT app_user_id())"
"""For policies: the sub-select is evaluated once per statement instead of once per row."""

# Both NULL and "" mean no user: after a transaction the setting reverts to "", not to NULL.
APP_USER_ID = """
CREATE FUNCTION app_user_id() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('app.user_id', true), '')::uuid
"""

# RFC 9562, 5.7 and 6.2 method 3: 48 bits of milliseconds, the version, 12 bits of the fraction of
# the millisecond, then the variant and 62 random bits of a version 4 uuid.
UUID_V7 = """
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
"""

# A revision's backfill sets app.keep_updated_at, which is heeded for the table's owner only.
SET_UPDATED_AT = """
CREATE FUNCTION set_updated_at() RETURNS trigger
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

_COMMENTS = {
    "app_user_id": "The user whom this transaction acts for (setting app.user_id); NULL is nobody",
    "uuid_v7": "A time-ordered version 7 uuid; uuidv7() of PostgreSQL 18, for 16 and 17 too",
    "set_updated_at": "Trigger: updated_at is the time of the last change, whoever wrote it",
}


@event.listens_for(metadata, "before_create")
def create_functions(_metadata: MetaData, connection: Connection, **_options: object) -> None:
    """Create the functions, before the tables whose defaults and triggers call them."""
    for body in (APP_USER_ID, UUID_V7, SET_UPDATED_AT):
        connection.execute(text(body))
    for name, comment in _COMMENTS.items():
        connection.execute(text(f"COMMENT ON FUNCTION {name}() IS '{comment}'"))
        connection.execute(text(f"REVOKE ALL ON FUNCTION {name}() FROM PUBLIC"))
    for name in ("app_user_id", "uuid_v7"):
        connection.execute(text(f"GRANT EXECUTE ON FUNCTION {name}() TO {APPLICATION}"))
