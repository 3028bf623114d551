"""Test the behaviour of the schema, for the mutations.

It runs in one transaction in which two users have one row each in every table. It takes rows and
statements from the models and from this file, not from the catalogs, which a mutation changes.
"""

from collections.abc import Iterator
from uuid import UUID, uuid4

from sqlalchemy.exc import DBAPIError

from models import metadata
from schema.access.probe import FORMS, ROLES, can_access
from schema.access.sample_rows import PUBLIC, Rows, Trial, role_to_set
from schema.checks.isolation import expected
from schema.roles import APPLICATION, BETTER_AUTH

# Invalid rows, even for a superuser: the table, and the invalid columns.
NEW = {"id": "gen_random_uuid()"}
BAD_ROWS: tuple[tuple[str, dict[str, str]], ...] = (
    ("todo", {**NEW, "title": "''"}),
    ("todo", {**NEW, "title": "E' \\t'"}),
    ("todo", {**NEW, "title": "repeat('x', 501)"}),
    ("todo", {**NEW, "description": "repeat('x', 10001)"}),
    ("todo", {**NEW, "updated_at": "NULL"}),
    ("todo", {**NEW, "user_id": "gen_random_uuid()"}),
    ("todo", {}),
    ("tag", {**NEW, "name": "' '"}),
    ("tag", {**NEW, "name": "repeat('x', 51)"}),
    ("tag", {**NEW, "name": "upper({name})"}),
    ("tag", {**NEW, "name": "'another'", "updated_at": "NULL"}),
    ("tag", {"user_id": "gen_random_uuid()"}),
    ("tag", {"name": "'another'"}),
    ("todo_tag", {"tag_id": "{other.tag_id}"}),
    ("todo_tag", {"todo_id": "{other.todo_id}"}),
    ("todo_tag", {}),
    ("user", {**NEW, "email": "'UPPER@example.invalid'"}),
    ("user", NEW),
    ("user", {"email": "'another@example.invalid'"}),
    ("session", {**NEW, "token": "'new'", "userId": "gen_random_uuid()"}),
    ("session", NEW),
    ("session", {"token": "'another'"}),
    ("account", {**NEW, "userId": "gen_random_uuid()", "accountId": "'another'"}),
    ("account", NEW),
    ("account", {"accountId": "'another'"}),
    ("verification", {}),
)

# A table, and the tables in which its user's rows are deleted with a row of it.
CASCADES = {
    "user": ("session", "account", "todo", "tag", "todo_tag"),
    "todo": ("todo_tag",),
    "tag": ("todo_tag",),
}


def problems(trial: Trial, user: UUID, tables: list[Rows], only: str | None) -> Iterator[str]:
    """Yield the wrong behaviour, of all tables or of `only` one."""
    chosen = [rows for rows in tables if only in {None, rows.table}]
    yield from _accesses(trial, user, chosen)
    yield from _without_user(trial, chosen)
    yield from _required(trial, chosen)
    yield from _bad_rows(trial, chosen)
    yield from _cascades(trial, tables, only)
    yield from _defaults(trial, chosen)
    yield from _touched(trial, chosen)
    yield from _owner(trial, chosen)
    if only is None:
        yield from _roles(trial)


def _accesses(trial: Trial, user: UUID, tables: list[Rows]) -> Iterator[str]:
    for rows in tables:
        for role in ROLES:
            for form in FORMS:
                wanted = expected(role, rows.table, form.name)
                for row, reached in ((rows.own, wanted != "none"), (rows.other, wanted == "all")):
                    if can_access(trial, (role, user), form, rows, row) != reached:
                        yield f"{form.name} on {rows.table} as {role}"


def _without_user(trial: Trial, tables: list[Rows]) -> Iterator[str]:
    for rows in tables:
        if trial.sees(APPLICATION, "", rows):
            yield f"a transaction without a user sees {rows.table}"
    if not trial.refused(APPLICATION, "garbage", "SELECT app_user_id()"):
        yield "garbage is an identity"
    if trial.refused(APPLICATION, "", "SELECT 1 / (app_user_id() IS NULL)::int"):
        yield "app_user_id() is not NULL without a user"


def _required(trial: Trial, tables: list[Rows]) -> Iterator[str]:
    """Check that the NOT NULL columns of the models reject NULL."""
    for rows in tables:
        for column in metadata.tables[rows.table].columns:
            # Not tested: whether dropping a key keeps NOT NULL depends on the version.
            if column.nullable or column.primary_key or column.computed is not None:
                continue
            statement = (
                f'UPDATE {rows.name} SET "{column.name}" = NULL WHERE {rows.where(rows.own)}'
            )
            if _allowed(trial, statement) and column.name != "updated_at":
                yield f"{rows.table}.{column.name} may be empty"


def _bad_rows(trial: Trial, tables: list[Rows]) -> Iterator[str]:
    by_name = {rows.table: rows for rows in tables}
    for table, changes in BAD_ROWS:
        rows = by_name.get(table)
        if rows is None:
            continue
        values = {f'"{name}"': _literal(value) for name, value in rows.own.items()}
        values = {name: value for name, value in values.items() if name.strip('"') in _names(rows)}
        for name, value in changes.items():
            known = {f"other.{key}": _literal(one) for key, one in rows.other.items()}
            known |= {key: _literal(one) for key, one in rows.own.items()}
            for key, one in known.items():
                value = value.replace(f"{{{key}}}", one)  # noqa: PLW2901  # the template filled in
            values[f'"{name}"'] = value
        columns, literals = ", ".join(values), ", ".join(values.values())
        if _allowed(trial, f"INSERT INTO {rows.name} ({columns}) VALUES ({literals})"):
            yield f"a bad row of {table} is accepted: {changes}"


def _cascades(trial: Trial, tables: list[Rows], only: str | None) -> Iterator[str]:
    by_name = {rows.table: rows for rows in tables}
    for parent, children in CASCADES.items():
        if only not in {None, parent, *children}:
            continue
        rows = by_name[parent]
        savepoint = trial.connection.begin_nested()
        try:
            trial.run(f"DELETE FROM {rows.name} WHERE {rows.where(rows.own)}")
            for child in (by_name[name] for name in children):
                if trial.run(f"SELECT FROM {child.name} WHERE {child.where(child.own)}"):
                    yield f"{child.table} outlives its {parent}"
                if not trial.run(f"SELECT FROM {child.name} WHERE {child.where(child.other)}"):
                    yield f"{child.table} goes with another {parent}"
        except DBAPIError:
            yield f"{parent} cannot be deleted"
        finally:
            savepoint.rollback()


def _defaults(trial: Trial, tables: list[Rows]) -> Iterator[str]:
    """Check that the database generates the expected defaults."""
    for rows in tables:
        for column in metadata.tables[rows.table].columns:
            if column.server_default is None or column.computed is not None:
                continue
            names = [name for name in _names(rows) if name != column.name]
            unique = {"email": "'fresh@example.invalid'", "token": "'fresh'", "accountId": "'f'"}
            key = {} if column.name == "id" else {"id": "gen_random_uuid()"}
            fresh = {**unique, "name": "'fresh'", **key}
            values = [
                fresh[name] if name in fresh and name in rows.own else _literal(rows.own[name])
                for name in names
            ]
            quoted = ", ".join(f'"{name}"' for name in names)
            statement = (
                f"INSERT INTO {rows.name} ({quoted}) VALUES ({', '.join(values)})"
                f' RETURNING "{column.name}"::text'
            )
            problem = _default_problem(trial, rows.table, column.name, statement)
            if problem:
                yield problem


def _default_problem(trial: Trial, table: str, column: str, statement: str) -> str | None:
    savepoint = trial.connection.begin_nested()
    try:
        made = trial.connection.exec_driver_sql(statement.replace("%", "%%")).scalar_one()
    except DBAPIError:
        return f"{table}.{column} is not filled in"
    finally:
        savepoint.rollback()
    if made is None:
        return f"{table}.{column} is left empty"
    if column == "id":
        version = (
            4
            if "userId" in metadata.tables[table].columns or table in {"user", "verification"}
            else 7
        )
        if UUID(made).version != version:
            return f"{table}.id is of another version"
    return None


def _touched(trial: Trial, tables: list[Rows]) -> Iterator[str]:
    """Check that an UPDATE cannot keep or forge the time of the last change."""
    for rows in tables:
        if "updated_at" not in rows.own:
            continue
        statement = (
            f"UPDATE {rows.name} SET updated_at = '2001-01-01' WHERE {rows.where(rows.own)}"
            " RETURNING 1 / (updated_at = CURRENT_TIMESTAMP)::int"
        )
        if not _allowed(trial, statement):
            yield f"{rows.table}.updated_at can be faked"


def _owner(trial: Trial, tables: list[Rows]) -> Iterator[str]:
    """Check that row security is forced on an owner without BYPASSRLS."""
    savepoint = trial.connection.begin_nested()
    try:
        owner = trial.connection.exec_driver_sql(
            "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'public.todo'::regclass"
        ).scalar_one()
        trial.connection.exec_driver_sql(f"ALTER ROLE {owner} NOBYPASSRLS")
        trial.connection.exec_driver_sql(f"SET LOCAL ROLE {owner}")
        for rows in tables:
            if trial.run(f"SELECT FROM {rows.name}"):
                yield f"the owner sees {rows.table}"
    finally:
        savepoint.rollback()


def _roles(trial: Trial) -> Iterator[str]:
    """Check what a group role can do apart from rows."""
    unprivileged = role_to_set(PUBLIC)
    for role in (APPLICATION, BETTER_AUTH, unprivileged):
        for statement in (
            "CREATE TEMPORARY TABLE shadow (x int)",
            "CREATE TABLE public.intruder (x int)",
            "CREATE SCHEMA intruder",
            "CREATE ROLE intruder",
            "SELECT * FROM pg_catalog.pg_authid",
            "UPDATE public.alembic_version SET version_num = version_num",
        ):
            if not trial.refused(role, uuid4(), statement):
                yield f"{role} may {statement}"
    for role, function, may in (
        (APPLICATION, "app_user_id()", True),
        (APPLICATION, "uuid_v7()", True),
        (BETTER_AUTH, "app_user_id()", False),
        (BETTER_AUTH, "uuid_v7()", False),
        (unprivileged, "app_user_id()", False),
    ):
        if trial.refused(role, uuid4(), f"SELECT public.{function}") == may:
            yield f"{role} and {function}"
    if trial.refused(APPLICATION, uuid4(), "SELECT FROM public.alembic_version"):
        yield "the application does not see the revision"
    if trial.refused(BETTER_AUTH, uuid4(), "SELECT FROM public.alembic_version"):
        yield "Better Auth does not see the revision"


def _allowed(trial: Trial, statement: str) -> bool:
    """Whether the superuser can execute the statement; its effect is rolled back."""
    savepoint = trial.connection.begin_nested()
    try:
        trial.connection.exec_driver_sql(statement.replace("%", "%%"))
    except DBAPIError:
        return False
    finally:
        savepoint.rollback()
    return True


def _names(rows: Rows) -> list[str]:
    return [name.strip('"') for name in rows.columns.split(", ")]


def _literal(value: object) -> str:
    return "NULL" if value is None else "'" + str(value).replace("'", "''") + "'"
