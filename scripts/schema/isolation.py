"""A first proof that the database keeps users apart, by trying: two users, one application role.

It runs on a database at head, in one transaction that is rolled back, as the group roles
themselves: the owner's own sight proves nothing, because on Neon it ignores row security.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError

from .database import connect, reason
from .errors import CannotRunError
from .ownership import APPLICATION, BETTER_AUTH, owned_tables
from .proof import Failure, Outcome, counted

REMEDY = "Compare the table's policies and grants with those of table todo."

# A value for each type that a column without a default may have.
SAMPLES = {
    "text": "'sample'",
    "uuid": "gen_random_uuid()",
    "boolean": "false",
    "integer": "1",
    "bigint": "1",
    "date": "CURRENT_DATE",
    "timestamp with time zone": "CURRENT_TIMESTAMP",
    "jsonb": "'{}'",
}

REQUIRED_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod)
FROM pg_attribute AS a
WHERE a.attrelid = to_regclass(:table) AND a.attnum > 0 AND NOT a.attisdropped
  AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attname <> 'user_id'
ORDER BY a.attnum
"""


class _Trial:
    """Counts the statements tried, and keeps what went wrong."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.statements = 0
        self.failures: list[Failure] = []

    def run(self, statement: str) -> int:
        """Execute a statement and say how many rows it returned or changed."""
        self.statements += 1
        with self.connection.begin_nested():
            return self.connection.execute(text(statement)).rowcount

    def refused(self, statement: str) -> bool:
        """Whether PostgreSQL refuses the statement."""
        try:
            self.run(statement)
        except DBAPIError:
            return True
        return False

    def expect(self, held: bool, message: str) -> None:
        """Keep the message as a failure when what should hold does not."""
        if not held:
            self.failures.append(Failure(message, REMEDY))

    @contextmanager
    def acting(self, role: str, user: str | None = None) -> Iterator[None]:
        """Act as that role, for that user: as an application's transaction does."""
        self.connection.execute(text(f"SET LOCAL ROLE {role}"))
        if user is not None:
            self.connection.execute(
                text("SELECT set_config('app.user_id', :user, true)"), {"user": user}
            )
        yield
        self.connection.execute(text("RESET ROLE"))


def check(head: URL) -> Outcome:
    """Prove that user A sees and changes none of user B's rows, and that nobody sees nothing.

    Raises:
        CannotRunError: the connecting role may not act as the group roles.

    """
    with connect(head) as connection:
        trial = _Trial(connection)
        _become_group_roles(connection)
        tables = owned_tables(connection)
        with trial.acting(APPLICATION):
            nobody = trial.run("SELECT WHERE app_user_id() IS NULL") == 1
            trial.expect(nobody, "A transaction that names no user acts for one.")
        a, b = uuid4(), uuid4()
        try:
            with trial.acting(BETTER_AUTH):
                for user in (a, b):
                    trial.run(
                        f'INSERT INTO "user" (id, name, email)'
                        f" VALUES ('{user}', 'sample', '{user}@example.invalid')"
                    )
            for table in tables:
                for user in (a, b):
                    with trial.acting(APPLICATION, str(user)):
                        trial.run(_insertion(connection, table, user))
        except DBAPIError as error:
            message = f"A user cannot write rows of their own: {reason(error)}."
            return Outcome("rows of two users", [Failure(message, REMEDY)])
        for table in (*tables, "user"):
            _try_everything(trial, table, a, b)
        connection.rollback()
    covered = f"{counted(len(tables) + 1, 'table')}, {counted(trial.statements, 'statement')}"
    return Outcome(f"{covered} as {APPLICATION}", trial.failures)


def _become_group_roles(connection: Connection) -> None:
    try:
        connection.execute(
            text(f"GRANT {APPLICATION}, {BETTER_AUTH} TO CURRENT_USER WITH INHERIT FALSE, SET TRUE")
        )
    except DBAPIError as error:
        raise CannotRunError(
            f"The role {connection.engine.url.username} may not act as {APPLICATION} and"
            f" {BETTER_AUTH} ({reason(error)}); connect as the role that made them."
        ) from error


def _insertion(connection: Connection, table: str, user: UUID) -> str:
    columns = connection.execute(text(REQUIRED_COLUMNS), {"table": f'public."{table}"'}).all()
    names = ", ".join(f'"{name}"' for name in ("user_id", *(column[0] for column in columns)))
    values = ", ".join((f"'{user}'", *(SAMPLES.get(column[1], "NULL") for column in columns)))
    return f'INSERT INTO "{table}" ({names}) VALUES ({values})'


def _try_everything(trial: _Trial, table: str, a: UUID, b: UUID) -> None:
    """Try each kind of statement on one table, in which A and B have a row each."""
    column = "id" if table == "user" else "user_id"
    everything = f'SELECT FROM "{table}"'
    others = f"\"{table}\" WHERE {column} = '{b}'"
    with trial.acting(APPLICATION, str(a)):
        trial.expect(
            trial.run(everything) == 1, f"{APPLICATION} sees other rows of {table} than A's."
        )
        trial.expect(
            trial.run(f"SELECT FROM {others}") == 0, f"A sees B's row of {table} by asking for it."
        )
        if table != "user":
            change = f'UPDATE "{table}" SET {column} = {column} '
            trial.expect(trial.run(change) == 1, f"A updates other rows of {table} than A's.")
            trial.expect(
                trial.run(f"{change} WHERE {column} = '{b}'") == 0, f"A updates B's row of {table}."
            )
            trial.expect(trial.run(f"DELETE FROM {others}") == 0, f"A deletes B's row of {table}.")
            trial.expect(
                trial.refused(f"UPDATE \"{table}\" SET {column} = '{b}'"),
                f"A gives a row of {table} to B.",
            )
            trial.expect(
                trial.refused(_insertion(trial.connection, table, b)),
                f"A inserts a row of {table} for B.",
            )
    for nobody in ("", str(uuid4())):
        with trial.acting(APPLICATION, nobody):
            who = "an unknown user" if nobody else "nobody"
            trial.expect(trial.run(everything) == 0, f"Rows of {table} are seen as {who}.")
    with trial.acting(APPLICATION, "garbage"):
        trial.expect(
            trial.refused(everything),
            f"An identity that is no uuid reads {table} without an error.",
        )
    with trial.acting(APPLICATION, str(b)):
        trial.expect(trial.run(everything) == 1, f"B's row of {table} did not survive A.")
