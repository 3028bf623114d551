"""The safe alternative to a statement that was found dangerous.

The recipes are those of migrations/README.md, and of the pages of ALTER TABLE and CREATE INDEX.
"""

from pglast import ast
from pglast.enums import AlterTableType, ConstrType

from schema.review.execution.statements import parsed

_ADD = {
    ConstrType.CONSTR_FOREIGN: "the foreign key",
    ConstrType.CONSTR_CHECK: "the CHECK",
}
_USING = (
    "Build the unique index CONCURRENTLY in a revision of its own, then add the constraint USING"
    " INDEX."
)
_COMMANDS = {
    AlterTableType.AT_ValidateConstraint: (
        "VALIDATE in a later revision than the one that adds it NOT VALID: alone it keeps no writer"
        " waiting."
    ),
    AlterTableType.AT_SetNotNull: (
        "Add CHECK (… IS NOT NULL) NOT VALID, VALIDATE it in a later revision, then SET NOT NULL,"
        " which believes it, and drop the CHECK."
    ),
    AlterTableType.AT_AlterColumnType: (
        "Add a column of the new type, fill it in batches, switch the application, and drop the old"
        " one in a later release."
    ),
    AlterTableType.AT_AddColumn: (
        "Add the column nullable and without a volatile default, set the default, and fill the rows"
        " in batches; a foreign key or CHECK comes NOT VALID afterwards."
    ),
    AlterTableType.AT_AttachPartition: (
        "Add a CHECK of the partition's bounds first and VALIDATE it: ATTACH believes it."
    ),
}
_HELD = (
    "Let each transaction lock one table, and do nothing else while it does: move this statement to"
    " a revision of its own."
)
_BACKFILL = (
    "Write the rows in batches, each in a transaction of its own, in a revision without DDL."
)


def alternative(kind: str, sql: str) -> str:
    """Return what to do instead of a statement with a finding of that kind."""
    if kind in {"held", "several"}:
        return _HELD
    if kind == "backfill":
        return _BACKFILL
    statement = parsed(sql)
    found = ""
    if isinstance(statement, ast.AlterTableStmt):
        found = next(filter(None, (_of_command(one) for one in statement.cmds)), "")
    elif isinstance(statement, ast.IndexStmt):
        found = "CREATE INDEX CONCURRENTLY, in an autocommit block of a revision of its own."
    elif isinstance(statement, ast.ReindexStmt):
        found = "REINDEX … CONCURRENTLY, in an autocommit block."
    elif isinstance(statement, ast.RefreshMatViewStmt):
        found = "REFRESH MATERIALIZED VIEW CONCURRENTLY, in a revision of its own."
    elif isinstance(statement, ast.ClusterStmt | ast.VacuumStmt):
        found = "Leave it to VACUUM, or rewrite the table outside of migrations with pg_repack."
    return found or (
        "Add a new column, table or constraint beside it, fill it in batches, and switch in a later"
        " revision."
    )


def _of_command(command: ast.AlterTableCmd) -> str:
    """Return the alternative to one command of ALTER TABLE; "" for none."""
    if command.subtype == AlterTableType.AT_AddConstraint:
        return _add_constraint(command.def_.contype)
    return _COMMANDS.get(command.subtype, "")


def _add_constraint(kind: ConstrType) -> str:
    if kind in _ADD:
        return f"Add {_ADD[kind]} NOT VALID, and VALIDATE it in a later revision."
    if kind in {ConstrType.CONSTR_PRIMARY, ConstrType.CONSTR_UNIQUE}:
        return _USING
    return ""
