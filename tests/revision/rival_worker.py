"""A rival of `schema revision`: Alembic's autogenerate, in a process and an environment of its own.

It is started with the names of what it may use, reads a job a line (JSON), and answers a line. A
job names two databases: the one that the models describe, and the one that is compared with them,
which it upgrades by what it has found. What a rival cannot do without failing on a schema that does
not differ is left out, so that it can show what else it can do.
"""

import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module, metadata
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.operations.ops import MigrateOperation, ModifyTableOps, UpgradeOps
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

VERSION_TABLE = "alembic_version"

_PARTITIONED = """
    SELECT n.nspname, c.relname, pg_get_partkeydef(c.oid) FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind = 'p'
"""

_CONFIGURED = {
    "compare_type": True,
    "compare_server_default": True,
    "include_schemas": True,
    "autogenerate_plugins": ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"],
}
"""Every setting that lets Alembic see more."""

_ENTITIES = {
    "pg_extension": "PGExtension",
    "pg_function": "PGFunction",
    "pg_grant_table": "PGGrantTable",
    "pg_materialized_view": "PGMaterializedView",
    "pg_policy": "PGPolicy",
    "pg_trigger": "PGTrigger",
    "pg_view": "PGView",
}
"""What alembic-utils knows."""

_DECLARED = ("schemas", "roles", "grants", "functions", "procedures", "triggers", "views")
"""What sqlalchemy-declarative-extensions knows."""


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """Connect without a pool; what is not committed is rolled back."""
    engine = sa.create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


class Rival:
    """Alembic with what the command line names."""

    def __init__(self, uses: Sequence[str]) -> None:
        """Import the packages: their hooks work from then on."""
        self.uses = uses
        self.kinds: list[str] = []
        """What of the packages can be compared, by name."""
        self.entities_left_out: set[str] = set()
        self.there: dict[str, Any] | None = None
        """What alembic-utils reads in the database that is compared, which is always alike."""
        self.alike: set[str] = set()
        """The entities that are the same in both databases, and need not be compared."""
        self.options: dict[str, Any] = {}
        if "settings" in uses:
            self.options |= _CONFIGURED
        if "alembic-postgresql-enum" in uses:
            import_module("alembic_postgresql_enum")
        if "functions of public" in uses:
            self.options["include_schemas"] = False
            self.kinds.append("pg_function")
        elif "alembic-utils" in uses:
            self.kinds += _ENTITIES
        if "alembic-utils" in uses:
            self.options["include_object"] = self._is_included
        if "sqlalchemy-declarative-extensions" in uses:
            found = import_module("sqlalchemy_declarative_extensions")
            found.register_alembic_events(databases=False, rows=False)
            self.kinds += _DECLARED

    def _is_included(self, entity: Any, *_rest: object) -> bool:  # noqa: ANN401  # Alembic's hook
        return getattr(entity, "identity", "") not in self.entities_left_out | self.alike

    def models(self, target: str, database: str, *, whole: bool) -> sa.MetaData:
        """Return what the rival can say about a database; `whole`: also what does not differ."""
        with connected(target) as connection:
            found = reflected(connection, self._schemas(connection))
            if "sqlalchemy-declarative-extensions" in self.uses:
                self._declare(connection, found)
        if "alembic-utils" in self.uses:
            self._register_entities(target, database, whole=whole)
        return found

    def _register_entities(self, target: str, database: str, *, whole: bool) -> None:
        """Register what alembic-utils reads.

        It takes a minute to compare a hundred grants with themselves, so what it reads alike in
        both databases is left out.
        """
        package = import_module("alembic_utils.replaceable_entity")
        package.registry.clear()
        classes = [_entity(one) for one in self.kinds if one in _ENTITIES]
        wanted = self._read_entities(target, classes)
        there = self.there or self._read_entities(database, classes)
        self.there = None if whole else there
        self.alike = set()
        if not whole:
            self.alike = {
                name
                for name, one in wanted.items()
                if name in there and there[name].definition == one.definition
            }
        found = [one for name, one in wanted.items() if name not in self.alike]
        package.register_entities(found, entity_types=classes)

    def _read_entities(self, url: str, classes: Sequence[Any]) -> dict[str, Any]:
        with connected(url) as connection:
            return {
                entity.identity: entity
                for kind in classes
                for schema in self._schemas(connection)
                for entity in kind.from_database(Session(connection), schema)
            }

    def _schemas(self, connection: sa.Connection) -> list[str]:
        return ["public"] if "functions of public" in self.uses else _schemas(connection)

    def _declare(self, connection: sa.Connection, found: sa.MetaData) -> None:
        package = import_module("sqlalchemy_declarative_extensions")
        query = import_module("sqlalchemy_declarative_extensions.dialects.query")
        parts: dict[str, Any] = {}
        if "schemas" in self.kinds:
            parts["schemas"] = package.Schemas().are(*query.get_schemas(connection).values())
        if "roles" in self.kinds:
            roles = query.get_roles(connection)
            known = {one.name for one in roles}
            builtin = {name for one in roles for name in one.in_roles or ()} - known
            role = package.Role
            parts["roles"] = package.Roles().are(
                *roles, *(role(name, external=True) for name in sorted(builtin))
            )
        if "grants" in self.kinds:
            grants = package.Grants(ignore_self_grants=False, only_defined_roles=False)
            parts["grants"] = grants.are(
                *query.get_default_grants(connection, expanded=True),
                *query.get_grants(connection, expanded=True),
            )
        for kind in ("functions", "procedures", "triggers", "views"):
            if kind in self.kinds:
                collection = getattr(package, kind.title())
                parts[kind] = collection().are(*getattr(query, f"get_{kind}")(connection))
        package.declare_database(found, **parts)

    def operations(
        self, target: str, database: str, *, whole: bool = False
    ) -> list[tuple[str, MigrateOperation]]:
        """Compare a database with the models; return the code of each operation, and itself."""
        models = self.models(target, database, whole=whole)
        with connected(database) as connection:
            context = MigrationContext.configure(connection, opts=dict(self.options))
            found = produce_migrations(context, models).upgrade_ops
            return [(_code(one, context), one) for one in _leaves(found)]

    def upgrade(self, database: str, operations: Sequence[tuple[str, MigrateOperation]]) -> None:
        """Execute operations in one transaction, as a revision does."""
        with connected(database) as connection:
            context = MigrationContext.configure(
                connection, opts={**self.options, "transaction_per_migration": True}
            )
            with context.begin_transaction(_per_migration=True), Operations.context(context) as op:
                for code, operation in operations:
                    _execute(op, operation, code)

    def calibrate(self, target: str, database: str) -> list[str]:
        """Leave out what fails although nothing differs; return its names, and why."""
        found: list[str] = []
        kinds, self.kinds = self.kinds, []
        for kind in kinds:
            self.kinds = [kind]
            if kind in _ENTITIES:
                found += self._calibrate_entities(kind, database)
            try:
                self.operations(target, database, whole=True)
            except Exception as error:  # noqa: BLE001  # a package may raise anything
                found.append(f"{kind}: {_line(error)}")
                kinds = [one for one in kinds if one != kind]
        self.kinds = kinds
        self.there = None
        return found

    def _calibrate_entities(self, kind: str, database: str) -> Iterator[str]:
        """Leave out each entity that cannot be compared with itself."""
        with connected(database) as connection:
            for schema in self._schemas(connection):
                try:
                    entities = _entity(kind).from_database(Session(connection), schema)
                except Exception:  # noqa: BLE001  # then the whole kind is left out
                    return
                for entity in entities:
                    nested = connection.begin_nested()
                    try:
                        entity.get_required_migration_op(Session(connection))
                    except Exception as error:  # noqa: BLE001  # as above
                        self.entities_left_out.add(entity.identity)
                        yield f"{entity.identity}: {_line(error)}"
                    if nested.is_active:
                        nested.rollback()


def _entity(kind: str) -> Any:  # noqa: ANN401  # a class of a package that is untyped here
    return getattr(import_module(f"alembic_utils.{kind}"), _ENTITIES[kind])


def _schemas(connection: sa.Connection) -> list[str]:
    names = sa.inspect(connection).get_schema_names()
    return [one for one in names if one != "information_schema" and not one.startswith("pg_")]


def reflected(connection: sa.Connection, schemas: Sequence[str]) -> sa.MetaData:
    """Read the tables of some schemas."""
    found = sa.MetaData()
    for schema in schemas:
        found.reflect(
            connection,
            schema=None if schema == "public" else schema,
            only=lambda name, _: name != VERSION_TABLE,
        )
        _sort_expressions(connection, found, schema)
    for schema, name, key in connection.exec_driver_sql(_PARTITIONED):
        table = found.tables.get(name if schema == "public" else f"{schema}.{name}")
        if table is not None:
            table.dialect_options["postgresql"]["partition_by"] = key
    return found


def _sort_expressions(connection: sa.Connection, found: sa.MetaData, schema: str) -> None:
    """Say how indexes sort their expressions, which reflection reads and does not use."""
    for table in found.tables.values():
        if (table.schema or "public") != schema:
            continue
        for one in sa.inspect(connection).get_indexes(table.name, schema=schema):
            sorting = one.get("column_sorting", {})
            expressions = one.get("expressions", [])
            descending = {name for name, how in sorting.items() if "desc" in how}
            if not descending & {*expressions} - {*one["column_names"]}:
                continue
            (old,) = (index for index in table.indexes if index.name == one["name"])
            table.indexes.remove(old)
            parts = [
                table.c[name] if name in table.c else sa.literal_column(name)
                for name in expressions
            ]
            sa.Index(
                old.name,
                *(
                    part.desc() if name in descending else part
                    for name, part in zip(expressions, parts, strict=True)
                ),
                unique=old.unique,
                _table=table,  # which an index of expressions alone does not name
                **old.dialect_kwargs,
            )


def _leaves(found: UpgradeOps | None) -> Iterator[MigrateOperation]:
    for one in [] if found is None else found.ops:
        if isinstance(one, ModifyTableOps):
            for inner in one.ops:
                yield ModifyTableOps(one.table_name, [inner], schema=one.schema)
        else:
            yield one


def _code(operation: MigrateOperation, context: MigrationContext) -> str:
    try:
        return render_python_code(UpgradeOps([operation]), migration_context=context)
    except Exception as error:  # noqa: BLE001  # the operation itself can be executed all the same
        return f"{type(operation).__name__} ({_line(error)})"


def _execute(op: Operations, operation: Any, code: str) -> None:  # noqa: ANN401  # any package's
    """Execute an operation itself, or the code that a package renders for it."""
    if isinstance(operation, ModifyTableOps):
        for inner in operation.ops:
            op.invoke(inner)
        return
    if not hasattr(operation, "to_sql"):
        try:
            op.invoke(operation)
        except ValueError:  # Alembic says so if there is no implementation
            _run_code(op, code)
        return
    for sql in _statements(op, operation):
        if isinstance(sql, str):
            op.get_bind().exec_driver_sql(sql.replace("%", "%%"))
        else:
            op.execute(sql)


def _statements(op: Operations, operation: Any) -> list[Any]:  # noqa: ANN401  # as above
    kind = type(operation).__name__
    if kind.endswith("ViewOp"):
        found = operation.to_sql(op.get_bind().dialect)
    elif kind.endswith("TriggerOp"):
        found = operation.to_sql(op.get_bind())
    else:
        found = operation.to_sql()
    return list(found) if isinstance(found, (list, tuple)) else [found]


def _run_code(op: Operations, code: str) -> None:
    names: dict[str, Any] = {**vars(postgresql), **vars(sa), "op": op, "sa": sa}
    names["postgresql"] = postgresql
    enums = import_module("alembic_postgresql_enum")
    names |= {"TableReference": enums.TableReference, "ColumnType": enums.ColumnType}
    exec(code, names)  # noqa: S102  # running what a rival has written is the point


def _words(code: str) -> str:
    """Return the words of rendered code: some packages write a set in any order."""
    return " ".join(sorted(re.findall(r"\S+", code.replace(",", " "))))


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition('\n')[0]}"


def answer(rival: Rival, job: Mapping[str, Any]) -> dict[str, Any]:
    """Do a job: `calibrate`, `compare`, or `repair`, which compares and upgrades."""
    found: dict[str, Any] = {"operations": [], "crash": None, "left out": []}
    try:
        if job["do"] == "calibrate":
            found["left out"] = rival.calibrate(job["target"], job["database"])
        known = job.get("known", [])
        operations = [
            one for one in rival.operations(job["target"], job["database"]) if one[0] not in known
        ]
        found["operations"] = [code for code, _ in operations]
        if job["do"] == "repair" and operations:
            rival.upgrade(job["database"], operations)
    except Exception as error:  # noqa: BLE001  # a crash is a result
        found["crash"] = _line(error)
        found["trace"] = traceback.format_exc()
    return found


def main() -> None:
    """Answer jobs until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a package prints is no answer
    warnings.simplefilter("ignore")
    rival = Rival(sys.argv[1:])
    names = ["alembic", "sqlalchemy", *(one for one in rival.uses if "-" in one)]
    versions = {one: metadata.version(one) for one in names}
    answers.write(json.dumps(versions) + "\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(answer(rival, json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
