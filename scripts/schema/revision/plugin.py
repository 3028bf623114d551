"""The Alembic plugin `schema`: what `alembic check` and `revision --autogenerate` compare.

Alembic loads it, by its entry point, whenever it is imported: so nothing else is imported here.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.operations.ops import UpgradeOps
    from alembic.runtime.plugins import Plugin
    from alembic.util import PriorityDispatchResult


def setup(plugin: "Plugin") -> None:
    """Register the comparison; `autogenerate_plugins` in env.py chooses it."""
    plugin.add_autogenerate_comparator(compare, "autogenerate")


def compare(context: "AutogenContext", upgrade: "UpgradeOps") -> "PriorityDispatchResult":
    """Compare the database with the models, and let Alembic know every difference."""
    from schema.revision import autogenerate  # noqa: PLC0415  # see above

    return autogenerate.compare(context, upgrade)
