"""The safe deploy: what `alembic upgrade`, `downgrade` and `stamp` do to a live database.

`runner.py` holds the steps in their order. A deploy that ended early continues after the last
committed revision when it is run again.
"""

from migrations.deploy.runner import deploy

__all__ = ["deploy"]
