"""The wheel, and the snippets of its README."""

import re
import subprocess
from pathlib import Path

from sqlalchemy import URL, text

from models.version import HISTORY
from schema.postgres.connection import connect
from schema.project import ROOT
from tests.application.better_auth.service import install_better_auth
from tests.support.npm import find_node

USER = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"

# The names that the snippets use.
PRELUDE = f"""
import os, uuid
DATABASE_URL = os.environ["URL"]
user_id = uuid.UUID("{USER}")
"""


def snippets(heading: str, language: str = "python") -> list[str]:
    """Return the snippets below a heading of the wheel's README."""
    readme = (ROOT / "models" / "README.md").read_text(encoding="utf-8")
    section = readme.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def run(python: Path, code: str, url: URL | None = None) -> str:
    """Run a program in that environment, and return what it prints."""
    address = "" if url is None else url.render_as_string(hide_password=False)
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [python, "-P", "-W", "error", "-c", code],
        env={"URL": address},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_models_and_their_types(python: Path) -> None:
    """`todo_schema` can be imported alone, has types, and its version names the head revision."""
    code = """
import importlib.metadata, importlib.util, pathlib
import todo_schema
print(importlib.metadata.version("todo-schema"))
print(sorted(todo_schema.metadata.tables))
print((pathlib.Path(todo_schema.__file__).parent / "py.typed").exists())
print(importlib.util.find_spec("models"), importlib.util.find_spec("schema"))
print([one for one in importlib.metadata.requires("todo-schema") if "async" in one])
"""
    version, tables, typed, others, extra = run(python, code).splitlines()
    assert version.endswith(f"+{HISTORY[-1]}")
    assert "todo_tag" in tables
    assert typed == "True"
    assert others == "None None"
    assert "greenlet" in extra


def test_the_wheel_brings_no_command_and_no_plugin(python: Path) -> None:
    """The wheel does not install `schema`, which works only in this repository."""
    code = """
import importlib.metadata
print(list(importlib.metadata.distribution("todo-schema").entry_points))
"""
    assert run(python, code) == "[]\n"


def test_the_readmes_snippets_run(python: Path, application: URL, better_auth: URL) -> None:
    """All Python snippets run in order, as the application's login."""
    with connect(better_auth) as connection:
        connection.execute(
            text('INSERT INTO "user" (id, name, email) VALUES (:id, :name, :name)'),
            {"id": USER, "name": "alice"},
        )
        connection.commit()
    start, acting, plain, piped, job, reset = snippets("The application")
    (queries,) = snippets("Common queries")
    url = application.set(drivername="postgresql").render_as_string(hide_password=False)
    code = "\n".join(
        [
            PRELUDE,
            start,
            reset,
            acting,
            "assert todos == []",
            # libpq's form of the URL, without SQLAlchemy's driver name
            f"DATABASE_URL = {url!r}",
            plain,
            piped,
            "from datetime import UTC, datetime",
            job,
            "complete_everything([user_id])",
            "for _ in range(20):",  # psycopg prepares what is repeated, and the reset keeps it
            "    with Session(engine) as session, acting_as(session, user_id):",
            "        session.exec(select(Todo)).all()",
            "with Session(engine) as session, acting_as(session, user_id):",
            "    session.add(Todo(user_id=user_id, title='first'))",
            "    session.flush()",
            "\n".join(f"    {line}" for line in queries.splitlines()),
            "    assert [one.title for one in still_open] == ['first'], still_open",
            "with Session(engine) as session, acting_as(session, user_id):",
            "    found = {one.title: [tag.name for tag in one.tags]"
            " for one in session.exec(newest)}",
            "assert found == {'first': [], 'Buy milk': ['Errands']}, found",
        ]
    )
    run(python, code, application)


def test_the_readmes_better_auth_snippet_runs(better_auth: URL) -> None:
    """The configuration of the README signs a user up, and answers all users of an application."""
    program, folder = find_node(), install_better_auth().parent
    snippet, comparison = snippets("Better Auth", "js")
    code = (
        snippet
        + comparison
        + """
import { twoFactor } from "better-auth/plugins";
console.log(await missing(auth.options));
const without = await missing({ ...auth.options, plugins: [twoFactor()] });
console.log(without.includes("twoFactor.secret") && without.includes("user.twoFactorEnabled"));
const { user } = await auth.api.signUpEmail({
  body: { name: "Alice", email: "Alice@example.invalid", password: "correct horse battery" },
});
console.log(user.email);
const answers = [];
for (let n = 0; n < 130; n++) {
  const request = new Request(`${process.env.BETTER_AUTH_URL}/api/auth/get-session`);
  answers.push((await auth.handler(request)).status);
}
console.log(answers.every((status) => status === 200));
process.exit();
"""
    )
    address = better_auth.set(drivername="postgresql").render_as_string(hide_password=False)
    done = subprocess.run(
        [program, "--input-type=module", "-"],
        input=code,
        cwd=folder,
        env={
            "AUTH_DATABASE_URL": address,
            "BETTER_AUTH_SECRET": "only for this test, and long enough",
            "BETTER_AUTH_URL": "http://localhost:3000",
            "BETTER_AUTH_TELEMETRY": "0",
            "NODE_ENV": "production",  # which limits how often an address may ask
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "[]\ntrue\nalice@example.invalid\ntrue\n", done.stderr
