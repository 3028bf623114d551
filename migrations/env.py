"""What Alembic runs for every command: connect, then run the revisions, one transaction each.

A connection that is handed in through `config.attributes["connection"]` is used as it is (the
`schema` command and the tests do so); otherwise DATABASE_URL names the database.
"""

import logging.config
from typing import Any

from alembic import context
from sqlalchemy import create_engine
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


def connect_and_run() -> None:
    """Run the command's revisions on the database that DATABASE_URL names."""
    if context.config.config_file_name is not None:
        logging.config.fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    engine = create_engine(database_url.from_environment(), poolclass=NullPool)
    with engine.connect() as connection:
        run(connection=connection)


if context.is_offline_mode():
    run(dialect_name="postgresql", literal_binds=True)
elif (handed_in := context.config.attributes.get("connection")) is not None:
    run(connection=handed_in)
else:
    connect_and_run()
