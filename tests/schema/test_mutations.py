"""If a part of the schema is removed or weakened, a test of its behaviour fails.

The mutations are derived from the snapshot, so that new objects are covered: either
`rls_behaviour.py` notices the loss, or UNNOTICED gives the reason why it cannot. A changed snapshot
does not count.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from migrations import snapshot
from models import metadata
from schema.access.trial import Scene, Trial, scene
from schema.postgres.connection import connect
from schema.postgres.embedded import embedded
from schema.project import SNAPSHOT, scripts
from schema.revisions.runner import upgrade
from tests.support.rls_behaviour import problems, untestable

UNNOTICED = {
    r"role \w+: (LOGIN|REPLICATION|CREATEDB)": (
        "shows only when connecting, or outside of a transaction; `schema check` refuses it by rule"
    ),
    r"grant to PUBLIC of set_updated_at\(\): for PUBLIC": (
        "a trigger's function cannot be called; `schema check` refuses the grant by rule"
    ),
    r"column name(_lower)? of tag: optional": "either one keeps both from being empty",
    r"index .*": "an index changes how fast, not what: the tests of query plans notice it",
}


@dataclass(frozen=True)
class Mutation:
    """One way to weaken the schema."""

    name: str
    table: str | None
    """Its table; None if it affects all tables."""
    sql: str


def mutations(facts: snapshot.Snapshot) -> Iterator[Mutation]:
    """Yield every mutation of every fact."""
    for fact in facts:
        kind, _, name = fact.object.partition(" ")
        part, _, what = fact.part.partition(" ")
        if kind == "table":
            for title, sql in OF_TABLE.get(part, _nothing)(name, what, fact.definition):
                yield Mutation(f"{part} {what} of {name}: {title}", name.strip('"'), sql)
        elif kind == "function":
            for title, sql in _of_function(name, part, what, fact.definition):
                yield Mutation(f"{part} {what} of {name}: {title}", None, sql)
        elif (kind, part) == ("role", "attributes"):
            for title, sql in _of_role(name):
                yield Mutation(f"role {name}: {title}", None, sql)
        elif (kind, part) == ("schema", "grant"):
            role = what.removeprefix("to ")
            sql = f"REVOKE USAGE ON SCHEMA {name} FROM {role}"
            yield Mutation(f"schema {name}: not for {role}", None, sql)
    for title, sql in _of_nobody():
        yield Mutation(title, None, sql)


type Variants = Iterator[tuple[str, str]]
"""Pairs of a description and its SQL."""


def _nothing(_table: str, _what: str, _definition: str) -> Variants:
    yield from ()


def _row_security(table: str, _what: str, _definition: str) -> Variants:
    yield "disabled", f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"
    yield "not forced", f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"


def _policy(table: str, what: str, definition: str) -> Variants:
    yield "dropped", f"DROP POLICY {what} ON {table}"
    for clause, keyword in (("using", "USING"), ("with check", "WITH CHECK")):
        if f"  {clause} " in definition:
            to = "false" if f"  {clause} true" in definition else "true"
            yield f"{clause} {to}", f"ALTER POLICY {what} ON {table} {keyword} ({to})"


def _grant(table: str, what: str, definition: str) -> Variants:
    for privilege in definition.split(", "):
        sql = f"REVOKE {privilege} ON {table} FROM {what.removeprefix('to ')}"
        yield f"without {privilege}", sql


def _constraint(table: str, what: str, definition: str) -> Variants:
    drop = f"ALTER TABLE {table} DROP CONSTRAINT {what} CASCADE"
    yield "dropped", drop
    if " ON DELETE CASCADE" in definition:
        plain = definition.replace(" ON DELETE CASCADE", "")
        yield "without cascade", f"{drop}; ALTER TABLE {table} ADD CONSTRAINT {what} {plain}"


def _trigger(table: str, what: str, _definition: str) -> Variants:
    yield "dropped", f"DROP TRIGGER {what} ON {table}"
    yield "disabled", f"ALTER TABLE {table} DISABLE TRIGGER {what}"


def _index(_table: str, what: str, _definition: str) -> Variants:
    yield "dropped", f"DROP INDEX {what}"


def _column(table: str, what: str, definition: str) -> Variants:
    in_key = metadata.tables[table.strip('"')].columns[what.strip('"')].primary_key
    if "  not null" in definition and not in_key:
        yield "optional", f"ALTER TABLE {table} ALTER COLUMN {what} DROP NOT NULL"
    if "  default " in definition:
        yield "without default", f"ALTER TABLE {table} ALTER COLUMN {what} DROP DEFAULT"


OF_TABLE = {
    "row": _row_security,
    "policy": _policy,
    "grant": _grant,
    "constraint": _constraint,
    "trigger": _trigger,
    "index": _index,
    "column": _column,
}


def _of_role(name: str) -> Variants:
    for attribute in ("SUPERUSER", "BYPASSRLS", "CREATEROLE", "CREATEDB", "LOGIN", "REPLICATION"):
        yield attribute, f"ALTER ROLE {name} {attribute}"
    other = "todo_auth" if name == "todo_app" else "todo_app"
    for group in (other, "pg_read_all_data", "pg_write_all_data"):
        yield f"member of {group}", f"GRANT {group} TO {name}"


def _of_nobody() -> Variants:
    """Mutations that grant what no role has, which no line of the snapshot says."""
    for role in ("todo_app", "todo_auth", "PUBLIC"):
        for privilege in ("CREATE", "TEMPORARY"):
            yield (
                f"database: {privilege} for {role}",
                (
                    "DO $$ BEGIN EXECUTE format("
                    f"'GRANT {privilege} ON DATABASE %I TO {role}', current_database()); END $$"
                ),
            )
        yield f"schema public: CREATE for {role}", f"GRANT CREATE ON SCHEMA public TO {role}"


def _of_function(name: str, part: str, what: str, definition: str) -> Variants:
    if part == "grant" and definition != "none":
        role = what.removeprefix("to ")
        yield f"not for {role}", f"REVOKE ALL ON FUNCTION {name} FROM {role}"
    elif part == "grant":
        yield "for PUBLIC", f"GRANT EXECUTE ON FUNCTION {name} TO PUBLIC"
    elif part == "definition" and "RETURNS trigger" in definition:
        body = "BEGIN RETURN NEW; END"
        head = f"CREATE OR REPLACE FUNCTION {name} RETURNS trigger LANGUAGE plpgsql"
        yield "does nothing", f"{head} AS $$ {body} $$"
    elif part == "definition":
        head = f"CREATE OR REPLACE FUNCTION {name} RETURNS uuid LANGUAGE sql STABLE"
        yield "returns NULL", f"{head} RETURN NULL::uuid"
        yield "returns anything", f"{head.replace('STABLE', 'VOLATILE')} RETURN gen_random_uuid()"


def committed() -> snapshot.Snapshot:
    """Return the facts of schema.txt, which the test ids need without a server."""
    facts = []
    heading = ""
    for line in SNAPSHOT.read_text(encoding="utf-8").splitlines()[1:]:
        if line and not line.startswith(" "):
            heading = line
        elif re.match(" {4}[^ ]", line):
            part, _, definition = line.strip().partition("  ")
            facts.append(snapshot.Fact(heading, part, definition))
        elif facts:
            last = facts.pop()
            facts.append(last._replace(definition=f"{last.definition}\n{line}"))
    # test_application covers the application's access to Alembic's table.
    return tuple(fact for fact in facts if fact.object != "table alembic_version")


MUTATIONS = {mutation.name: mutation for mutation in mutations(committed())}


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[Trial, Scene]]:
    """Two users' rows in a transaction of the superuser, on its own server.

    On a shared server the mutations of roles would lock the roles of other tests.
    """
    with embedded() as started:
        with connect(started.owner, autocommit=True) as connection:
            connection.exec_driver_sql("CREATE DATABASE head")
        with connect(started.owner.set(database="head")) as connection:
            upgrade(connection, scripts())
        with connect(started.superuser.set(database="head")) as connection:
            trial = Trial(connection)
            with scene(trial) as made:
                yield trial, made


def test_nothing_is_noticed_without_a_mutation(stage: tuple[Trial, Scene]) -> None:
    """Without a mutation `rls_behaviour.py` finds no problem."""
    trial, made = stage
    assert list(problems(trial, made, None)) == []


# The quick tier runs every tenth mutation, which includes each kind; --all runs all.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if number % 10 == 0 else pytest.mark.slow)
        for number, name in enumerate(MUTATIONS)
    ],
)
def test_every_mutation_is_noticed(stage: tuple[Trial, Scene], name: str) -> None:
    """After each mutation `rls_behaviour.py` finds a problem."""
    mutation = MUTATIONS[name]
    reason = next((why for names, why in UNNOTICED.items() if re.fullmatch(names, name)), None)
    trial, made = stage
    savepoint = trial.connection.begin_nested()
    trial.connection.exec_driver_sql(mutation.sql.replace("%", "%%"))
    try:
        noticed = next(problems(trial, made, mutation.table), None)
    except (psycopg.Error, DBAPIError) as error:
        noticed = str(error)
    finally:
        savepoint.rollback()
    if noticed is None and any(
        name == f"constraint {check} of {table}: dropped"
        for table, check in (one.split(" ", 1) for one in untestable(trial, made))
    ):
        pytest.skip("no value is known that violates this CHECK")
    if reason is None:
        assert noticed is not None, f"nothing notices: {mutation.sql}"
    else:
        assert noticed is None, f"it is noticed by now, so it need not be listed: {noticed}"
