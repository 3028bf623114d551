"""The snapshot shows every difference of two schemas, and nothing else.

The theory: a snapshot shows the schema in PostgreSQL's catalogs. schema.sql and superuser.sql make
an object of each kind. Each single change in changes.sql must show; the statements in unchanged.sql
change no schema and must not show. pg_dump is the independent oracle: it reads the same catalogs.

Changes are made and read in transactions that are rolled back, which takes 30 ms each. pg_dump
sees committed state only, so against it each change gets a clone of its own: the slow tier.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from sqlalchemy import URL, Connection

from migrations import snapshot
from migrations.snapshot import Fact, catalog
from schema.postgres.connection import connect
from schema.postgres.embedded import OWNER
from schema.postgres.installation import VERSIONS
from schema.postgres.scratch import Server

DATA = Path(__file__).parent
NEWEST = VERSIONS[0]
ROLES = ("rich_app", "rich_reader", "rich_lender", "rich_other", "rich_stranger")
NEWEST_SAMPLE, OLDER_SAMPLE = 4, 12
"""The quick tier makes one of so many changes, on the newest version and on older ones."""
DUMPED_SAMPLE = 30
"""The quick tier compares one of this many changes with pg_dump."""


class Change(NamedTuple):
    """One entry of changes.sql or unchanged.sql."""

    name: str
    remarks: frozenset[str]
    sql: str


def entries(file: str) -> list[Change]:
    """Read a file of changes: a headline, remarks in brackets, statements below it."""
    text = (DATA / file).read_text(encoding="utf-8").partition("\n\n")[2]
    found = re.split(r"^-- (.+?)(?: \[(.+)\])?\n", text, flags=re.MULTILINE)[1:]
    return [
        Change(name, frozenset((remarks or "").split(", ")), sql)
        for name, remarks, sql in zip(found[::3], found[1::3], found[2::3], strict=True)
    ]


CHANGES = entries("changes.sql")
UNCHANGED = entries("unchanged.sql")
DUMPED = [change for change in CHANGES if "cluster" not in change.remarks]


def cases(changes: list[Change], newest_sample: int, older_sample: int) -> list[Any]:
    """Pair each change with each version that has it; pairs outside the sample are slow tests."""
    parameters = []
    for version in VERSIONS:
        sample = newest_sample if version == NEWEST else older_sample
        for number, change in enumerate(changes):
            if "since 18" in change.remarks and version < 18:
                continue
            slow = pytest.mark.slow if number % sample else ()
            name = f"pg{version} {change.name}"
            parameters.append(pytest.param(version, change, id=name, marks=slow))
    return parameters


def run(connection: Connection, sql: str) -> None:
    """Run a script without SQLAlchemy, which would interpret colons and percent signs."""
    database = connection.engine.url.database
    script = sql.replace(":database", f'"{database}"').replace(":owner", OWNER)
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute(script)


def run_file(url: URL, file: str) -> None:
    """Run a script of the data folder in that database."""
    with connect(url, autocommit=True) as connection:
        run(connection, (DATA / file).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Rich:
    """The databases of one server that hold the rich schema."""

    server: Server
    superuser: URL
    binaries: Path
    template: URL

    @contextmanager
    def clone(self) -> Iterator[URL]:
        """Make a database with the rich schema; its superuser's URL."""
        with self.server.database(self.template) as owner:
            url = self.superuser.set(database=owner.database)
            run_file(url, "database.sql")
            try:
                yield url
            finally:
                # A database with a subscription cannot be dropped, and one in which a superuser's
                # session is just ending not by its owner.
                with connect(url, autocommit=True) as connection:
                    run(connection, "DROP SUBSCRIPTION mirror")
                with connect(self.superuser, autocommit=True) as connection:
                    run(connection, f'DROP DATABASE "{owner.database}" WITH (FORCE)')


def prepare(superuser: URL) -> None:
    """Make the roles and the tablespace of the rich schema; other processes may do so too."""
    with connect(superuser, autocommit=True) as connection:
        run(connection, "SELECT pg_advisory_lock(hashtext('tests/test_snapshot.py'))")
        for role in ROLES:
            exists = connection.exec_driver_sql(f"SELECT to_regrole('{role}')").scalar_one()
            if exists is None:
                run(connection, f"CREATE ROLE {role}; GRANT {role} TO :owner WITH ADMIN OPTION")
        spaces = connection.exec_driver_sql("SELECT spcname FROM pg_tablespace").scalars().all()
        if "rich_space" not in spaces:
            run(connection, "GRANT rich_other TO rich_lender")
            run(connection, "SET allow_in_place_tablespaces = on")
            run(connection, "CREATE TABLESPACE rich_space LOCATION ''")


@pytest.fixture(scope="module")
def riches(
    servers: dict[int, Server], superusers: dict[int, URL], binaries: dict[int, Path]
) -> Iterator[dict[int, Rich]]:
    """The rich schema on each embedded version."""
    with ExitStack() as stack:
        found = {}
        for version, server in servers.items():
            superuser = superusers[version]
            prepare(superuser)
            template = stack.enter_context(server.database())
            run_file(template, "schema.sql")
            run_file(superuser.set(database=template.database), "superuser.sql")
            found[version] = Rich(server, superuser, binaries[version], template)
        yield found


class Session(NamedTuple):
    """A superuser's connection to a database with the rich schema, and that schema."""

    connection: Connection
    facts: snapshot.Snapshot


@pytest.fixture(scope="module")
def sessions(riches: dict[int, Rich]) -> Iterator[dict[int, Session]]:
    """One session for each version, for changes that are rolled back."""
    with ExitStack() as stack:
        opened = {}
        for version, rich in riches.items():
            url = stack.enter_context(rich.clone())
            connection = stack.enter_context(connect(url))
            opened[version] = Session(connection, changed(connection, ""))
        yield opened


def chosen_version(version: int, change: Change, sessions: dict[int, Session]) -> int:
    """Return the version to test: on one given server, it has the newest version's cases."""
    only = max(sessions)
    found = only if len(sessions) == 1 and version == NEWEST else version
    if found not in sessions or ("since 18" in change.remarks and found < 18):
        pytest.skip(f"PostgreSQL {version} is not tested in this run")
    return found


@pytest.fixture
def session(sessions: dict[int, Session]) -> Session:
    """The session on the newest version."""
    return sessions[max(sessions)]


def make(connection: Connection, change: Change) -> None:
    """Make the change as a role that may, and continue as the owner, who can read less."""
    run(connection, "SET LOCAL allow_system_table_mods = on")
    if "superuser" not in change.remarks:
        run(connection, "SET LOCAL ROLE :owner")
    run(connection, change.sql)
    run(connection, "SET LOCAL ROLE :owner")


def changed(connection: Connection, change: Change | str) -> snapshot.Snapshot:
    """Read the schema after the change, and roll the change back."""
    if isinstance(change, str):
        change = Change("", frozenset(), change)
    with connection.begin() as transaction:
        make(connection, change)
        facts = snapshot.read(connection)
        transaction.rollback()
    return facts


@pytest.mark.parametrize(("version", "change"), cases(CHANGES, NEWEST_SAMPLE, OLDER_SAMPLE))
def test_each_change_shows(sessions: dict[int, Session], version: int, change: Change) -> None:
    """Each change shows before its commit: in the rows, in the text and as a difference."""
    version = chosen_version(version, change, sessions)
    before, after = sessions[version].facts, changed(sessions[version].connection, change)
    assert after != before
    assert snapshot.layout(after, None) != snapshot.layout(before, None)
    assert snapshot.difference(before, after)


@pytest.mark.parametrize(("version", "change"), cases(UNCHANGED, 1, 1))
def test_what_is_no_change_does_not_show(
    sessions: dict[int, Session], version: int, change: Change
) -> None:
    """Rows, statistics, orders, spellings and the platform's objects do not show."""
    version = chosen_version(version, change, sessions)
    session = sessions[version]
    assert snapshot.difference(session.facts, changed(session.connection, change)) == ""
    assert session.facts == changed(session.connection, change)


def dump(binaries: Path, url: URL, *options: str) -> str:
    """Dump a database's schema with pg_dump, always under the same name."""
    libpq = url.set(drivername="postgresql").render_as_string(hide_password=False)
    text = subprocess.run(
        [binaries / "pg_dump", "--schema-only", "--restrict-key=x", *options, libpq],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return text.replace(str(url.database), "rich")


@pytest.fixture(scope="module")
def dumps(riches: dict[int, Rich]) -> dict[int, str]:
    """pg_dump's output for the unchanged rich schema."""
    texts = {}
    for version, rich in riches.items():
        with rich.clone() as url:
            texts[version] = dump(rich.binaries, url, "--create")
    return texts


@pytest.mark.parametrize(("version", "change"), cases(DUMPED, DUMPED_SAMPLE, 4 * DUMPED_SAMPLE))
def test_pg_dump_sees_nothing_more(
    riches: dict[int, Rich],
    dumps: dict[int, str],
    sessions: dict[int, Session],
    version: int,
    change: Change,
) -> None:
    """If a committed change shows in pg_dump, it shows in the snapshot; some show only there."""
    version = chosen_version(version, change, sessions)
    with riches[version].clone() as url:
        with connect(url) as connection, connection.begin():
            make(connection, change)
        with connect(url) as connection:
            after = snapshot.read(connection)
        dumped = dump(riches[version].binaries, url, "--create")
    assert (dumped == dumps[version]) == ("blind" in change.remarks)
    assert after != sessions[version].facts


def test_restoring_a_dump_makes_the_same_schema(riches: dict[int, Rich]) -> None:
    """A restored dump has the same snapshot, so rows do not depend on object ids and orders.

    The dump is restored on its own version and on the newest. Large objects and the properties of
    the database itself are not compared.
    """
    for version, rich in riches.items():
        with connect(rich.template) as connection:
            before = snapshot.read(connection)
        text = dump(rich.binaries, rich.superuser.set(database=rich.template.database))
        for target in {version, max(riches)}:
            with riches[target].server.database() as empty:
                url = riches[target].superuser.set(database=empty.database)
                libpq = url.set(drivername="postgresql").render_as_string(hide_password=False)
                subprocess.run(
                    [rich.binaries / "psql", "--quiet", "--set=ON_ERROR_STOP=1", libpq],
                    input=text,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                with connect(empty) as connection:
                    after = snapshot.read(connection)
            assert snapshot.difference(without_large_objects(before), after) == ""


def without_large_objects(facts: snapshot.Snapshot) -> snapshot.Snapshot:
    """Remove large objects, which pg_dump treats as data."""
    return tuple(fact for fact in facts if not fact.object.startswith("large object "))


def test_every_version_reads_alike(sessions: dict[int, Session]) -> None:
    """The same statements give the same rows on every supported version."""
    for older, newer in pairwise(sorted(sessions)):
        assert snapshot.difference(sessions[older].facts, sessions[newer].facts) == ""
        assert sessions[older].facts == sessions[newer].facts


def test_reading_again_changes_nothing(
    sessions: dict[int, Session], riches: dict[int, Rich]
) -> None:
    """The same schema gives the same rows in the same order, in another session too."""
    for version, session in sessions.items():
        assert changed(session.connection, "") == session.facts
        owner = riches[version].server.maintenance
        with connect(owner.set(database=session.connection.engine.url.database)) as connection:
            assert snapshot.read(connection) == session.facts
        assert list(session.facts) == sorted(set(session.facts))


def test_the_owners_name_makes_no_difference(riches: dict[int, Rich]) -> None:
    """The same schema gives the same rows under another owner."""
    sql = (
        'CREATE ROLE "Other owner"; GRANT "Other owner" TO :owner;'
        ' GRANT ALL ON SCHEMA public TO "Other owner";'
    )
    schema = """
        CREATE TABLE owned (id integer);
        ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO rich_app;
        ALTER TABLE owned ENABLE ROW LEVEL SECURITY;
        CREATE POLICY owned_all ON owned TO CURRENT_USER, rich_reader;
        REVOKE DELETE ON owned FROM CURRENT_USER;
        GRANT SELECT ON owned TO rich_app WITH GRANT OPTION;
        SET LOCAL ROLE rich_app;
        GRANT SELECT ON owned TO rich_reader;
    """
    rich = riches[max(riches)]
    read = []
    with rich.clone() as url, connect(url) as connection:
        for change in (
            f"SET LOCAL ROLE :owner; {schema}",
            f'{sql} ALTER DATABASE :database OWNER TO "Other owner";'
            f' ALTER SCHEMA public OWNER TO "Other owner";'
            f' SET LOCAL ROLE "Other owner"; {schema}',
        ):
            with connection.begin() as transaction:
                run(connection, change)
                read.append(
                    [
                        fact
                        for fact in snapshot.read(connection)
                        if fact.object == "table owned" or fact.part == "tables to rich_app"
                    ]
                )
                transaction.rollback()
    assert read[0] == read[1]
    assert any(fact.part == "grant to <owner>" for fact in read[0])
    assert any(fact.definition.startswith("permissive  for all  to <owner>") for fact in read[0])


@pytest.mark.parametrize(
    "setting",
    [
        "search_path = library, public",
        "search_path = ''",
        "quote_all_identifiers = on",
        "standard_conforming_strings = off",
        "datestyle = 'SQL, DMY'",
        "intervalstyle = 'iso_8601'",
        "timezone = 'Asia/Kathmandu'",
        "extra_float_digits = -15",
        "bytea_output = 'escape'",
    ],
)
def test_settings_of_the_session_make_no_difference(session: Session, setting: str) -> None:
    """Session settings do not change the rows."""
    pinned = changed(session.connection, f"SET LOCAL {setting}")
    assert pinned == session.facts
    with session.connection.begin() as transaction:
        run(session.connection, f"SET LOCAL search_path = public; SET LOCAL {setting}")
        driver = session.connection.connection.driver_connection
        assert driver is not None
        bare = tuple(Fact(*row) for row in driver.execute(catalog.QUERY))
        transaction.rollback()
    assert bare != session.facts, "this setting need not be pinned"


def test_reading_leaves_a_transaction_as_it_was(session: Session) -> None:
    """The caller's transaction keeps its settings and changes, and is not committed."""
    connection = session.connection
    with connection.begin() as transaction:
        run(connection, "SET LOCAL search_path = library; CREATE TABLE inside (i integer)")
        facts = snapshot.read(connection)
        found = connection.exec_driver_sql("SHOW search_path").scalar_one()
        connection.exec_driver_sql("SELECT i FROM inside")
        transaction.rollback()
    assert found == "library"
    assert Fact("table library.inside", "column i", "integer") in facts
    assert changed(connection, "") == session.facts


@pytest.mark.parametrize("autocommit", [False, True])
def test_reading_begins_no_transaction(session: Session, autocommit: bool) -> None:
    """Reading leaves no open transaction: Alembic would take it for the caller's and not commit."""
    with connect(session.connection.engine.url, autocommit=autocommit) as connection:
        assert snapshot.read(connection) == session.facts
        assert not connection.in_transaction()
        driver = connection.connection.driver_connection
        assert driver is not None
        assert driver.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        found = connection.exec_driver_sql("SHOW search_path").scalar_one()
    assert found == '"$user", public'


def test_a_failed_transaction_is_the_callers(session: Session) -> None:
    """Reading in a failed transaction raises an error."""
    with session.connection.begin() as transaction:
        with pytest.raises(psycopg.errors.DivisionByZero):
            run(session.connection, "SELECT 1 / 0")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            snapshot.read(session.connection)
        transaction.rollback()


def test_secrets_stay_out(sessions: dict[int, Session]) -> None:
    """No snapshot, even a superuser's, contains connection strings or options of user mappings."""
    for session in sessions.values():
        with session.connection.begin() as transaction:
            facts = snapshot.read(session.connection)
            transaction.rollback()
        assert Fact("server archive", "user mapping for rich_app", "") in facts
        assert "secret" not in snapshot.layout(facts, None)
        assert facts == session.facts


SMALL = (
    Fact("database", "grant to PUBLIC", "CONNECT"),
    Fact("function f()", "definition", "CREATE FUNCTION f()\nAS $$\nSELECT 1;\n\nSELECT 2 \n$$"),
    Fact("function f()", "owner", "<owner>"),
    Fact("table todo", "column id", "uuid  not null"),
    Fact("table todo", "comment", '"What to do"'),
    Fact("table todo", "constraint todo_pkey", "PRIMARY KEY (id)"),
    Fact("table todo", "inherits thing", ""),
)
SMALL_TEXT = """\
revision abc123

table todo
    comment  "What to do"
    inherits thing
    column id  uuid  not null
    constraint todo_pkey  PRIMARY KEY (id)

function f()
    owner  <owner>
    definition
        CREATE FUNCTION f()
        AS $$
        SELECT 1;

        SELECT 2 ¶
        $$

database
    grant to PUBLIC  CONNECT
"""


def test_layout() -> None:
    """The text has the revision, then a block per object with one fact per line."""
    assert snapshot.layout(SMALL, "abc123") == SMALL_TEXT
    assert snapshot.layout(tuple(reversed(SMALL)), "abc123") == SMALL_TEXT
    assert snapshot.revision(SMALL_TEXT) == "abc123"
    assert snapshot.revision(snapshot.layout((), None)) is None


def test_difference() -> None:
    """A difference shows facts below their object, and changed lines of a long definition."""
    after = (
        *SMALL[2:4],
        Fact("function f()", "definition", "CREATE FUNCTION f()\nAS $$\nSELECT 1;\n\nSELECT 3\n$$"),
        Fact("table tag", "column id", "uuid"),
        Fact("table todo", "comment", '"To do"'),
        *SMALL[5:],
    )
    expected = """\
+ table tag
+     column id  uuid
  table todo
-     comment  "What to do"
+     comment  "To do"
  function f()
      definition
          SELECT 1;

-         SELECT 2 ¶
+         SELECT 3
          $$
- database
-     grant to PUBLIC  CONNECT
"""
    assert snapshot.difference(SMALL, after) == expected
    text = snapshot.layout(after, "def456")
    assert snapshot.text_difference(SMALL_TEXT, text) == expected
    assert snapshot.text_difference(text, snapshot.layout(after, "other")) == ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "a "),
        ("a ", "a ¶"),
        ("a¶", "a"),
        ("a\nb", "a\nb\n"),
        ("a\n\nb", "a\n \nb"),
        ("a\r\nb", "a\nb"),
        ("a\n\nb", "a\nb"),
        ("", "\n"),
    ],
)
def test_no_difference_is_lost_in_the_text(one: str, other: str) -> None:
    """Blanks that editors and git remove or rewrite are visible."""
    before, after = ((Fact("table t", "column c", text),) for text in (one, other))
    assert snapshot.difference(before, after)
    for facts in (before, after):
        text = snapshot.layout(facts, None)
        assert all(line == line.rstrip() for line in text.split("\n"))
        assert text.replace("\r\n", "\n").replace("\r", "\n") == text


def test_names_stay_in_their_line() -> None:
    """A name with blanks, line breaks or the form of a heading stays in its line."""
    name = 'column "a  b\ntable other"'
    before = (Fact("table t", name, "integer"), Fact("table t", 'column "a  c"', "integer"))
    after = (Fact("table t", name, "integer"), Fact("table t", 'column "a  c"', "text"))
    assert snapshot.difference(before, after) == (
        "  table t\n"
        '      column "a  b␊table other"  integer\n'
        '-     column "a  c"  integer\n'
        '+     column "a  c"  text\n'
    )
    assert "\ntable other" not in snapshot.layout(before, None)


@pytest.mark.parametrize("sign", ["\r", "\n"], ids=["carriage-return", "line-feed"])
def test_a_control_sign_is_no_picture_of_it(sign: str) -> None:
    """A control character and its visible sign in a name give different texts."""
    picture = {"\r": "␍", "\n": "␊"}[sign]
    texts = {
        snapshot.layout((Fact(f"table a{one}b", f"column a{one}b", f"x{one}y"),), None)
        for one in (sign, picture, f"␛{picture}", f"␛{sign}", "␛")
    }
    assert len(texts) == 5
