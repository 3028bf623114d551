"""Alembic's environment: run a command offline (`--sql`), on a connection, or as a deploy.

A connection or engine in `config.attributes["connection"]` is used as it is (by the `schema`
command and pytest-alembic). Without one, migrations/deploy works on the database in DATABASE_URL.
"""

import logging.config
from contextlib import nullcontext
from typing import Any

from alembic import context
from sqlalchemy import Connection, Engine

from migrations.deploy import deploy


def configure(**target: Any) -> None:  # noqa: ANN401  # the options of context.configure
    """Call `context.configure` with the project's settings: one transaction per revision.

    The models are imported where Alembic compares them (`check`, `revision`): a deploy needs
    neither them nor sqlmodel, nor the plugin that compares them (scripts/schema/revision).
    """
    context.configure(
        **target,
        transaction_per_migration=True,
        autogenerate_plugins=["schema"],
        compare_server_default=True,  # in the check "autogenerate", which selects Alembic's plugins
    )
    if "revision_context" in context.get_context().opts:
        from models import metadata  # noqa: PLC0415  # see above

        context.configure(**target, target_metadata=metadata)


def run(**target: Any) -> None:  # noqa: ANN401  # as above
    """Run the command's revisions on the target."""
    configure(**target)
    with context.begin_transaction():
        context.run_migrations()


bind: Connection | Engine | None = context.config.attributes.get("connection")
if context.is_offline_mode():
    # The driver's parameter style would double every % sign.
    named = {"paramstyle": "named"}
    run(dialect_name="postgresql", literal_binds=True, dialect_opts=named)
elif bind is not None:
    with bind.connect() if isinstance(bind, Engine) else nullcontext(bind) as connection:
        run(connection=connection)
else:
    if context.config.config_file_name is not None:
        logging.config.fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    deploy(configure)
