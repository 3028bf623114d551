"""The TypeScript recipe of models/README.md, run by Node under row security.

The theory: what is shown keeps users apart with `pg`, Kysely and Drizzle, and each trap that the
page names is one.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from tests.application.test_wheel import snippets
from tests.support.users import ALICE, BOB

pytestmark = pytest.mark.usefixtures("users")

USE = """
const [alice, bob] = process.argv.slice(-2);
const seen = {};
const failure = (promise) => promise.then(() => null, (error) => error.message);
await assertIsolated();
const add = (title) => (client) => client.query("INSERT INTO todo (title) VALUES ($1)", [title]);

await actingAs(alice, add("hers"));
await actingAs(bob, add("his"));
seen.pg = (await actingAs(bob, (client) => client.query("SELECT title FROM todo"))).rows;
seen.refused = await failure(actingAs(bob, add(" ")));
seen.hidden = await failure(actingAs(bob, async (client) => {
  await add("lost")(client);
  await add(" ")(client).catch(() => {});
}));
let later;
seen.late = await failure(actingAs(alice, async (client) => { later = client; })
  .then(() => later.query("SELECT title FROM todo")));
seen.nobody = await failure(actingAs(undefined, add("whose?")));
seen.broken = await failure(actingAs(bob, (client) =>
  client.query("SELECT pg_terminate_backend(pg_backend_pid())")));
seen.kysely = (await openTodos(alice)).map(({ title }) => title);
seen.drizzle = (await openTodosToo(bob)).map(({ title }) => title);

seen.outside = [
  await pool.query("SELECT FROM todo").then(({ rows }) => rows.length),
  await kysely.selectFrom("todo").selectAll().execute().then((rows) => rows.length),
  await database.select().from(todo).then((rows) => rows.length),
];
seen.setLocal = await failure(actingAs(bob, (client) =>
  client.query("SET LOCAL app.user_id = $1", [bob])));
const one = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 1 });
await one.query("SELECT set_config('app.user_id', $1, false)", [alice]);
seen.leaked = (await one.query("SELECT title FROM todo")).rows;
await one.end();
await pool.end();
console.log(JSON.stringify(seen));
"""


@pytest.fixture
def seen(installed: tuple[str, Path], application: URL) -> dict[str, Any]:
    """What the program above saw."""
    node, driver = installed
    address = application.set(drivername="postgresql").render_as_string(hide_password=False)
    done = subprocess.run(
        [node, "--input-type=module", "-", str(ALICE), str(BOB)],
        input="\n".join([*snippets("With TypeScript", "js"), USE]),
        cwd=driver.parent,
        env={"DATABASE_URL": address},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_users_are_kept_apart_in_typescript(seen: dict[str, Any]) -> None:
    """Each library sees its user's rows, and tells what failed."""
    assert seen["pg"] == [{"title": "his"}]
    assert seen["kysely"] == ["hers"]
    assert seen["drizzle"] == ["his"]
    assert "title_not_blank" in seen["refused"]
    assert "nothing was committed" in seen["hidden"]
    assert "has ended" in seen["late"]
    assert "needs the user's id" in seen["nobody"]
    assert "terminat" in seen["broken"]
    # The traps.
    assert seen["outside"] == [0, 0, 0]
    assert "syntax error" in seen["setLocal"]
    assert seen["leaked"] == [{"title": "hers"}]
