"""What Alembic runs for every command: connect, then run the revisions, one transaction each.

A connection or engine that is handed in through `config.attributes["connection"]` is used as it is
(the `schema` command and pytest-alembic do so); otherwise DATABASE_URL names the database.
"""

import logging.config
from contextlib import nullcontext
from typing import Any

from alembic import context
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool

from migrations import database_url
from models import metadata


def run(**target: Any) -> None:  # noqa: ANN401  # what context.configure takes
    """Run the command's revisions on that target."""
    context.configure(
        **target,
        target_metadata=metadata,
        transaction_per_migration=True,
        compare_server_default=True,
        autogenerate_plugins=["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"],
    )
    with context.begin_transaction():
        context.run_migrations()


def open_engine() -> Engine:
    """Open the database that DATABASE_URL names, and say what is done to it."""
    if context.config.config_file_name is not None:
        logging.config.fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    return create_engine(database_url.from_environment(), poolclass=NullPool)


if context.is_offline_mode():
    # The driver's own parameter style would double every % sign.
    named = {"paramstyle": "named"}
    run(dialect_name="postgresql", literal_binds=True, dialect_opts=named)
else:
    bind: Connection | Engine = context.config.attributes.get("connection") or open_engine()
    with bind.connect() if isinstance(bind, Engine) else nullcontext(bind) as connection:
        run(connection=connection)
