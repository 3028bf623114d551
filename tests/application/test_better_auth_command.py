"""`schema better-auth`: each difference that it finds, and each configuration that it refuses.

The theory: what makes Better Auth fail on a schema is named, whether Better Auth's own comparison
sees it or not; and neither a secret of the configuration nor its own database is touched.
"""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import URL, text
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from schema.better_auth import found, process
from schema.better_auth.differences import Difference, compare
from schema.better_auth.process import ask
from schema.errors import CannotRunError
from schema.postgres.connection import connect
from schema.postgres.scratch import Server
from schema.project import ROOT
from tests.application.better_auth.applications import CONFIG, application, lint_models
from tests.application.test_wheel import snippets
from tests.support.repo_copy import COMMAND, Checkout, Launcher

pytestmark = pytest.mark.usefixtures("installed")

type Compare = Callable[..., list[Difference]]


@pytest.fixture
def compared(head: URL, better_auth: URL, tmp_path: Path) -> Compare:
    """Compare a configuration, by default one without plugins, with `head`."""

    def run(config: str = CONFIG.format(plugins="")) -> list[Difference]:
        path = application(tmp_path / "application", config)
        return compare(ask(path, better_auth), found.read(head), found.declared())

    return run


def change(head: URL, statement: str) -> None:
    """Change the schema as the owner."""
    with connect(head, autocommit=True) as connection:
        connection.execute(text(statement))


def test_the_readmes_configuration_differs_in_nothing(compared: Compare) -> None:
    """The schema is what Better Auth itself needs."""
    assert compared(snippets("Better Auth", "js")[0]) == []


EXPORTS = {
    "instance": "export default betterAuth(options);",
    "options": "export default options;",
    "named options": "export const auth = options;",
    "promise": "export const auth = Promise.resolve(betterAuth(options));",
    "beside": "export const auth = () => {}; export default betterAuth(options);",
}


@pytest.mark.slow
@pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)
def test_each_form_of_a_configuration_is_read(compared: Compare, export: str) -> None:
    """An instance of Better Auth or its options, as `auth` or as the default."""
    differences = compared(
        f"""
        import {{ betterAuth }} from "better-auth";
        const options = {{ advanced: {{ database: {{ generateId: "uuid" }} }},
          user: {{ additionalFields: {{ age: {{ type: "number", required: false }} }} }} }};
        {export}
        """
    )
    assert [one.sentence for one in differences] == ["Column user.age is missing"]


def test_models_that_lack_what_the_history_has_are_told(
    head: URL, better_auth: URL, tmp_path: Path
) -> None:
    """The history and the models are compared each for itself."""
    path = application(tmp_path / "application", CONFIG.format(plugins=""))
    models = found.declared()
    del models["verification"]
    (one,) = compare(ask(path, better_auth), found.read(head), models)
    assert (one.kind, one.table, one.where) == ("missing-table", "verification", "models")


@pytest.mark.slow
def test_better_auth_compares_as_its_own_login(compared: Compare, head: URL) -> None:
    """Its comparison has the rights of todo_auth, and what stops it is a difference."""
    config = (
        'export default { advanced: { database: { generateId: "uuid" } },'
        ' user: { additionalFields: { age: { type: "number" } } } };'
    )
    change(head, 'REVOKE ALL ON "user" FROM todo_auth')
    missing, stopped = compared(config)
    assert missing.kind == "missing-column"
    assert stopped.sentence.endswith("comparison stops: permission denied for table user")


CHANGES = {
    "table": ("DROP TABLE verification", "missing-table", "verification"),
    "column": ('ALTER TABLE "user" DROP COLUMN image', "missing-column", "user.image"),
    "renamed": ('ALTER TABLE session RENAME "userAgent" TO ua', "missing-column", "userAgent"),
    "required": ("ALTER TABLE account ADD issuer text NOT NULL", "blocking-column", "INSERT"),
    "unused": ("ALTER TABLE account ADD note text", "extra-column", "account.note"),
    "nullable": ('ALTER TABLE "user" ALTER email DROP NOT NULL', "nullable", "user.email"),
    "not null": ('ALTER TABLE "user" ALTER image SET NOT NULL', "required", "user.image"),
    "text": ('ALTER TABLE session ALTER "expiresAt" TYPE text', "type", "expiresAt is text"),
    "zone": ('ALTER TABLE session ALTER "createdAt" TYPE timestamp', "type", "without time zone"),
    "id": ("ALTER TABLE session ALTER id DROP DEFAULT", "type", "session.id"),
    "unique": ("ALTER TABLE session DROP CONSTRAINT session_token_key", "missing-unique", "token"),
    "index": ('DROP INDEX "session_userId_idx"', "missing-index", "session.userId"),
    "partial": (
        'DROP INDEX "session_userId_idx"; CREATE INDEX ON session ("userId") WHERE token > \'a\'',
        "missing-index",
        "session.userId",
    ),
    "key": (
        'ALTER TABLE session DROP CONSTRAINT "session_userId_fkey"',
        "missing-reference",
        "user.id",
    ),
    "no action": (
        'ALTER TABLE session DROP CONSTRAINT "session_userId_fkey",'
        ' ADD FOREIGN KEY ("userId") REFERENCES "user" (id)',
        "reference",
        "NO ACTION, and Better Auth needs CASCADE",
    ),
}


@pytest.mark.slow
@pytest.mark.sample(4)
@pytest.mark.parametrize(("statement", "kind", "fragment"), CHANGES.values(), ids=CHANGES)
def test_a_changed_schema_is_told(
    compared: Compare, head: URL, statement: str, kind: str, fragment: str
) -> None:
    """Each change that Better Auth depends on is a difference of the history."""
    change(head, statement)
    first, *more = compared()
    assert (first.kind, first.where) == (kind, "history")
    assert fragment in first.sentence
    assert {one.kind for one in more} <= {"extra-column"}


PLUGIN = """
export default {{
  advanced: {{ database: {{ generateId: "uuid" }} }},
  plugins: [{{ id: "made-up", schema: {{ {table}: {{ fields: {{ {fields} }} }} }} }}],
}};
"""


@pytest.mark.slow
def test_a_table_of_the_applications_is_not_better_auths(compared: Compare) -> None:
    """A plugin's table of the same name as another one is told, and not its columns."""
    config = PLUGIN.format(table="todo", fields='note: { type: "string" }')
    assert [one.kind for one in compared(config)] == ["not-better-auths", "plan"]


SETTINGS = {
    "missing": ("{}", "advanced.database.generateId is not set"),
    "false": ("{ database: { generateId: false } }", "generateId is 'false'"),
    "serial": ('{ database: { generateId: "serial" } }', "generateId is 'serial'"),
    "function": ("{ database: { generateId: () => 'x' } }", "generateId is a function"),
    "older": ("{ generateId: () => 'x' }", "generateId is a function"),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize(("advanced", "sentence"), SETTINGS.values(), ids=SETTINGS)
def test_other_ids_are_told(compared: Compare, advanced: str, sentence: str) -> None:
    """Ids that the database does not make are no uuids."""
    (one,) = compared(f"export const auth = {{ advanced: {advanced} }};")
    assert one.kind == "configuration"
    assert sentence in one.sentence


@pytest.mark.slow
def test_other_names_are_told(compared: Compare) -> None:
    """A renamed table is missing under its name and unused under the other; so is the setting."""
    differences = compared(
        'export default { user: { modelName: "users" },'
        ' advanced: { database: { generateId: "uuid" } } };'
    )
    assert "user.modelName is 'users'" in differences[0].sentence
    assert ("missing-table", "users") in {(one.kind, one.table) for one in differences}
    assert ("extra-table", "user") in {(one.kind, one.table) for one in differences}


@pytest.mark.slow
def test_a_kysely_that_renames_is_told(compared: Compare) -> None:
    """CamelCasePlugin makes Better Auth ask for other columns than it says."""
    (one,) = compared(
        """
        import { CamelCasePlugin, Kysely, PostgresDialect } from "kysely";
        const dialect = new PostgresDialect({});
        const db = new Kysely({ dialect, plugins: [new CamelCasePlugin()] });
        export default {
          database: { db, type: "postgres" },
          advanced: { database: { generateId: "uuid" } },
        };
        """
    )
    assert "Kysely renames" in one.sentence


# What is refused.

SECRET = "kV3x0pQ9sL7wT2uY5zB8"  # noqa: S105  # must not appear in any output
REFUSED = {
    "throws": ('throw new Error("no mail server\\nand more");', "throws: no mail server."),
    "literal": (
        f'const secret = "{SECRET}"; throw new Error(`bad secret ${{secret}}`);',
        "throws: bad secret ***.",
    ),
    "url": (
        'throw new Error("cannot reach postgres://app:hunter2@db/x");',
        "throws: cannot reach postgres://***@db/x.",
    ),
    "environment": ("throw new Error(`bad ${process.env.MAIL_TOKEN}`);", "throws: bad ***."),
    "syntax": ("export const auth = {;", "throws: Unexpected token"),
    "import": ('import "no-such-package";', "throws: Cannot find package 'no-such-package'"),
    "nothing": ("export const settings = {};", "exports neither"),
    "other": ("export default class {};", "exports neither"),
    "exit": ("process.exit(0);", "ended Node before it was read"),
    "plugin": (
        PLUGIN.format(table="x", fields='y: { type: "colour" }'),
        "the field y has the unknown type colour",
    ),
}


@pytest.mark.sample(4)
@pytest.mark.parametrize(("config", "fragment"), REFUSED.values(), ids=REFUSED)
def test_a_configuration_that_cannot_be_read(
    better_auth: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, fragment: str
) -> None:
    """It is refused in one sentence, with the first line of its error, without a secret."""
    monkeypatch.setenv("MAIL_TOKEN", "hush")
    path = application(tmp_path / "application", config)
    with pytest.raises(CannotRunError) as raised:
        ask(path, better_auth)
    message = str(raised.value)
    assert fragment in message
    assert message.endswith(".")
    assert "\n" not in message
    assert not re.search(f"{SECRET}|hunter2|hush", message)


@pytest.mark.slow
def test_a_configuration_that_never_loads(
    better_auth: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up after a time, and ends with all that it has started."""
    monkeypatch.setattr(process, "TIMEOUT", 10)  # Better Auth itself loads in a second or two
    started = tmp_path / "started"
    path = application(
        tmp_path / "application",
        f"""
        import {{ spawn }} from "node:child_process";
        import {{ writeFileSync }} from "node:fs";
        const {{ pid }} = spawn("sleep", ["600"], {{ stdio: "ignore" }});
        writeFileSync({json.dumps(str(started))}, String(pid));
        await new Promise(() => {{}});
        """,
    )
    with pytest.raises(CannotRunError, match="did not load within 10 s"):
        ask(path, better_auth)
    pid = int(started.read_text(encoding="utf-8"))
    until = Retrying(retry=retry_if_result(bool), stop=stop_after_delay(10), wait=wait_fixed(0.02))
    until(running, pid)


def running(pid: int) -> bool:
    """Whether a process exists and is no zombie, which a parent has yet to notice."""
    done = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()[:1] not in {"", "Z"}


PACKAGES = {
    "missing": (None, "is not installed next to"),
    "old": ('{"exports": {".": "./x.mjs"}}', "is too old"),
    "broken": ('{"exports": {"./db": "./x.mjs", "./db/migration": "./x.mjs"}}', "does not load"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("manifest", "refusal"), PACKAGES.values(), ids=PACKAGES)
def test_a_package_that_is_missing_or_does_not_do(
    better_auth: URL, tmp_path: Path, manifest: str | None, refusal: str
) -> None:
    """The package must be found from the configuration, wherever the command runs."""
    if manifest:
        package = tmp_path / "node_modules" / "better-auth"
        package.mkdir(parents=True)
        (package / "package.json").write_text(manifest, encoding="utf-8")
        (package / "x.mjs").write_text('import "no-such-package";', encoding="utf-8")
    config = tmp_path / "auth.mjs"
    config.write_text("export default {};", encoding="utf-8")
    with pytest.raises(CannotRunError, match=refusal):
        ask(config, better_auth)


def test_node_that_is_missing_or_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Node is looked for before a server starts."""
    config = tmp_path / "auth.mjs"
    config.touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotRunError, match=r"Node cannot be found.*install Node 20 or later"):
        process.require_usable(config)
    node = tmp_path / "node"
    for answer, refusal in (("echo v18.20.0", "has the version 18.20.0"), ("exit 1", "not run")):
        node.write_text(f"#!/bin/sh\n{answer}\n", encoding="utf-8")
        node.chmod(0o700)
        with pytest.raises(CannotRunError, match=refusal):
            process.require_usable(config)


def test_a_configuration_sees_no_database_but_its_own(
    compared: Compare, better_auth: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own is not connected to, what it prints is dropped, and it gets no password."""
    monkeypatch.setenv("PGPASSWORD", SECRET)
    seen, connected = tmp_path / "seen", tmp_path / "connected"
    differences = compared(
        f"""
        import {{ writeFileSync }} from "node:fs";
        import {{ betterAuth }} from "better-auth";
        console.log("{{}}");
        writeFileSync({json.dumps(str(seen))}, JSON.stringify([process.env, process.argv]));
        const connect = () => writeFileSync({json.dumps(str(connected))}, "");
        export const auth = betterAuth({{
          secret: "only for tests, and 32 characters or more",
          database: {{ connect, options: {{}} }},
          advanced: {{ database: {{ generateId: "uuid" }} }},
        }});
        """
    )
    assert differences == []
    assert not connected.exists()
    learnt = seen.read_text(encoding="utf-8")
    assert str(better_auth.username) not in learnt
    assert SECRET not in learnt


# The command.


@pytest.fixture
def command(run: Launcher, server: Server) -> Callable[..., tuple[int, str, str]]:
    """Run the command in a checkout, on the shared server."""
    url = server.maintenance.render_as_string(hide_password=False)

    def start(root: Path, config: Path, *options: str) -> tuple[int, str, str]:
        arguments = ("better-auth", "--config", str(config), "--database-url", url, *options)
        done = run.run(root, *arguments, code=COMMAND)
        return done.code, done.out, done.err

    return start


type Run = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
def test_the_page_and_the_document(command: Run, tmp_path: Path) -> None:
    """Both say what is missing, and the exit code is 1; the document has every field."""
    config = application(tmp_path / "application", CONFIG.format(plugins="jwt()"))
    code, page, errors = command(ROOT, config)
    assert (code, errors) == (1, "")
    assert "jwks (new, of the plugin jwt)" in page
    assert re.search(r"privateKey +text +NOT NULL", page)
    assert "--write adds what is missing" in page
    code, out, errors = command(ROOT, config, "--json")
    assert (code, errors) == (1, "")
    document = json.loads(out)
    assert document.keys() == {
        *("version", "equal", "error", "better_auth", "head", "server"),
        *("limitations", "differences", "written", "refused"),
    }
    assert document["limitations"] == []
    (difference,) = document["differences"]
    assert difference["table"] == "jwks"
    assert {one["column"]: one["nullable"] for one in difference["needs"]}["expiresAt"]


@pytest.mark.slow
def test_an_adapter_with_names_of_its_own_is_told(command: Run, tmp_path: Path) -> None:
    """What the command cannot see does not pass in silence."""
    config = application(
        tmp_path / "application",
        """
        import { drizzleAdapter } from "better-auth/adapters/drizzle";
        export default {
          database: drizzleAdapter({}, { provider: "pg" }),
          advanced: { database: { generateId: "uuid" } },
        };
        """,
    )
    code, page, errors = command(ROOT, config)
    assert (code, errors) == (0, "")
    assert "such as Drizzle's: the names in that schema were not compared" in page


def test_the_document_of_an_error(command: Run, tmp_path: Path) -> None:
    """The document is printed too, with the sentence."""
    code, out, errors = command(ROOT, tmp_path / "no.mjs", "--json")
    assert code == 2
    assert json.loads(out)["error"] in errors
    assert "There is no file" in errors


@pytest.mark.slow
def test_a_history_or_models_that_are_broken(command: Run, copy: Checkout, tmp_path: Path) -> None:
    """Neither is Better Auth's fault: exit code 2, and what to do."""
    config = application(tmp_path / "application", CONFIG.format(plugins=""))
    copy.add('op.execute("SELECT 1 / 0")')
    code, out, errors = command(copy.root, config)
    assert (code, out) == (2, "")
    assert "The history does not build" in errors
    (copy.root / "models" / "tag.py").write_text("1 / 0\n", encoding="utf-8")
    code, out, errors = command(copy.root, config)
    assert (code, out) == (2, "")
    assert "The models cannot be imported" in errors


# --write.

CHOSEN = """
import { deviceAuthorization } from "better-auth/plugins";

export default {
  advanced: { database: { generateId: "uuid" } },
  rateLimit: { storage: "database" },
  user: {
    additionalFields: {
      theme: { type: ["light", "dark"], required: true, defaultValue: "light" },
      visits: { type: "number", bigint: true, required: false, index: true },
      labels: { type: "string[]" },
      news: { type: "boolean", defaultValue: false },
      friendId: {
        type: "string",
        required: false,
        references: { model: "user", field: "id", onDelete: "restrict" },
      },
      nickName: { type: "string", required: false, unique: true },
      apiToken: { type: "string", required: false },
    },
  },
  plugins: [
    deviceAuthorization({ expiresIn: "5m", interval: "5s" }),
    { id: "sorted", schema: { session: { indexes: [{ fields: ["userId", "createdAt"] }] } } },
  ],
};
"""


@pytest.mark.slow
def test_additional_fields_are_added(command: Run, copy: Checkout, tmp_path: Path) -> None:
    """Each type, a key, indexes, defaults and marks, in tables that are there and in new ones."""
    config = application(tmp_path / "application", CHOSEN)
    code, out, errors = command(copy.root, config, "--write")
    assert (code, errors) == (0, ""), out
    for name, fragments in {
        "user": (
            'Index(None, "visits"), Index(None, "friendId"), {"comment"',
            '"server_default": "light", "comment": "Theme, an additional field"',
            "visits: int | None = Field( default=None, sa_type=BigInteger",
            "labels: list[str] = Field( sa_type=JSONB",
            """"info": {"mask": "'{}'::jsonb"}""",
            '"server_default": text("false"), "comment": "News or not, an additional field"',
            'foreign_key="user.id", ondelete="SET NULL", sa_type=Uuid',
            "nick_name: str | None = Field( default=None, unique=True",
            '"comment": "PERSONAL: nick name, an additional field"',
            '"comment": "SECRET: api token, an additional field"',
        ),
        "session": ('Index("session_userId_createdAt_idx", "userId", "createdAt")',),
        "device_code": (
            'Index("deviceCode_userCode_uidx", "userCode", unique=True)',
            '"comment": "SECRET: what the user types to approve the device"',
        ),
        "rate_limit": ('"name": "lastRequest"', "sa_type=BigInteger"),
    }.items():
        model = (copy.root / "models" / f"{name}.py").read_text(encoding="utf-8")
        flat = " ".join(model.split())
        for fragment in fragments:
            assert fragment in flat, model
    lint_models(copy)


@pytest.mark.slow
def test_what_is_there_is_never_overwritten(command: Run, copy: Checkout, tmp_path: Path) -> None:
    """A file, a class, an attribute of the same name, a renamed table: named, and left alone."""
    key = "references: { model: 'tags', field: 'id' }"
    tables = {"label": key, "roles": "", "tags": "", "identityError": "", "fine": ""}
    plugins = ", ".join(
        f"{{ id: 'x', schema: {{ {one}: {{ fields: {{ a: {{ type: 'string', {more} }} }} }} }} }}"
        for one, more in tables.items()
    )
    config = application(
        tmp_path / "application",
        "export default { advanced: { database: { generateId: 'uuid' } },"
        " user: { additionalFields: { todos: { type: 'string', required: false } } },"
        " account: { fields: { accountId: 'number' } },"
        f" verification: {{ modelName: 'proof' }}, plugins: [{plugins}] }};",
    )
    (copy.root / "models" / "tags.py").write_text("kept = True\n", encoding="utf-8")
    before = {one: one.read_bytes() for one in (copy.root / "models").glob("*.py")}
    code, out, _ = command(copy.root, config, "--write", "--json")
    assert code == 1
    document = json.loads(out)
    assert document["written"] == ["models/fine.py", "models/__init__.py"]
    refused = "\n".join(document["refused"])
    for fragment in (
        "models/roles.py is there already",
        "models/tags.py is there already",
        "has another IdentityError",
        "a references tags, which is not there",
        "class User has an attribute of that name",
        "verification.modelName is 'proof'",
        "leave verification.modelName out",
        "leave account.fields.accountId out",
        "every INSERT into account fails",
    ):
        assert fragment in refused
    for path, content in before.items():
        assert path.name == "__init__.py" or path.read_bytes() == content
