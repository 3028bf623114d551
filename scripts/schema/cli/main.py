"""The `schema` command: its words, options and exit codes; the work is in the other modules."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import psycopg
import typer
from alembic.util import CommandError
from rich.console import Group
from schema.revisions.history import single_head
from sqlalchemy.exc import DBAPIError
from typer.rich_utils import rich_format_error

from migrations import postgres as urls
from migrations.postgres import first_error_line
from schema.checks import runner as checking
from schema.cli import check, output
from schema.errors import CannotRunError
from schema.generate.files import rewrite
from schema.live import adopt as adopting
from schema.live import doctor as doctoring
from schema.live import drift as drifting
from schema.live import history_schemas
from schema.postgres import dev_server, logins
from schema.postgres.embedded import VERSIONS, TerminatedError
from schema.postgres.scratch import Server, open_server
from schema.project import scripts

_WORD = re.compile(r"-{0,2}[a-z0-9][a-z0-9-]*")
"""An option or a word: an argument that may be repeated, as no URL looks like it."""

app = typer.Typer(
    help="Check, show and serve the schema that the migrations build; compare databases with it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DatabaseURL = Annotated[
    str | None,
    typer.Option(
        help="Work in scratch databases on this server, not on an embedded one.",
        metavar="URL",
        show_default=False,
    ),
]
Postgres = Annotated[
    int,
    typer.Option(help="Major version of the embedded server.", metavar="16|18"),
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def check(
    database_url: DatabaseURL = None,
    postgres: Postgres = VERSIONS[0],
    *,
    lint: Annotated[bool, typer.Option("--lint/--no-lint", help="Lint the SQL too.")] = True,
    as_json: AsJSON = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only what does not hold.")] = False,
) -> None:
    """Prove that the schema builds, unbuilds, matches its models and keeps users apart.

    Exit code 0: every proof holds; 1: one does not; 2: the proofs could not be tried.
    """
    start = time.perf_counter()
    with (
        _exits(check.refusal if as_json else None),
        _progress() as tell,
        _open(database_url, postgres, tell) as opened,
    ):
        ready = time.perf_counter()
        proofs = list(checking.check(opened, tell, lint=lint))
    result = check.Report(
        proofs,
        server=opened.version,
        head=single_head(scripts()),
        seconds=time.perf_counter() - start,
        starting=ready - start,
    )
    if as_json:
        typer.echo(check.document(result))
    elif not (quiet and result.holds):
        output.console().print(check.page(result, only_failures=quiet))
    if not result.holds:
        raise typer.Exit(1)


@app.command()
def snapshot(database_url: DatabaseURL = None, postgres: Postgres = VERSIONS[0]) -> None:
    """Rewrite migrations/schema.txt and models/version.py from what the migrations build."""
    with _exits(), _progress() as tell, _open(database_url, postgres, tell) as opened:
        tell("upgrade head")
        changed = rewrite(opened)
    typer.echo(changed or "Everything is up to date.", nl=not changed)


@app.command()
def serve(
    port: Annotated[
        int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.", min=0, max=65535)
    ] = 0,
    postgres: Postgres = VERSIONS[0],
) -> None:
    """Run a development server at the head revision until Ctrl-C; its data is then gone."""
    with _exits():
        _require_version(postgres)
        dev_server.serve(postgres, port, typer.echo)


@app.command()
def roles(
    application: Annotated[
        str, typer.Option(help="Name of the application's login.", metavar="NAME")
    ] = "todo_application",
    better_auth: Annotated[
        str, typer.Option(help="Name of Better Auth's login.", metavar="NAME")
    ] = "todo_better_auth",
    database_url: Annotated[
        str | None,
        typer.Option(
            help="Make them on the server of this database; otherwise the SQL is printed.",
            metavar="URL",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make the logins that hold the group roles, with new passwords, shown only once.

    A role that exists and would see around row security is refused.
    """
    with _exits():
        wanted = logins.pair(application, better_auth)
        if database_url is None:
            for one in wanted:
                typer.echo(f"-- {one.name}: its password is {one.password}")
                typer.echo(f"{one.statement()};")
            return
        url = urls.parse_url(database_url)
        for one, new in logins.make(url, wanted):
            if new:
                typer.echo(
                    logins.url_with_password(url.set(username=one.name, password=one.password))
                )
            else:
                typer.echo(f"{one.name} exists: it holds {one.group}, and keeps its password")


@app.command()
def drift(
    database_url: Annotated[
        str,
        typer.Option(help="The database to compare; it is only read.", metavar="URL"),
    ],
    *,
    as_json: AsJSON = False,
) -> None:
    """Compare a live database with what the history builds at its revision.

    Exit code 0: no drift; 1: drift, which is shown; 2: it could not be compared.
    """
    with _exits(drifting.refusal if as_json else None), _progress() as tell:
        directory = scripts()
        tell("the database")
        live = drifting.look(urls.parse_url(database_url), directory)
        with _open(None, history_schemas.closest_embedded_version(live.server), tell) as opened:
            tell("the history")
            compared = drifting.compare(live, opened, history_schemas.build(opened, directory))
    _answer(
        drifting.document(compared) if as_json else drifting.page(compared),
        good=not compared.found.drifted,
    )


@app.command()
def adopt(
    database_url: Annotated[
        str,
        typer.Option(help="The database that has the tables, but no revision.", metavar="URL"),
    ],
    *,
    as_json: AsJSON = False,
) -> None:
    """Find the revision whose schema a database has, and record it there.

    Exit code 0: it is stamped; 1: it equals none, the nearest is shown, and nothing was changed;
    2: it was refused.
    """
    with _exits(adopting.refusal if as_json else None), _progress() as tell:
        target = urls.parse_url(database_url)
        directory = scripts()
        history_schemas.require_linear_history(directory)
        tell("the database")
        live = adopting.look(target)
        with _open(None, history_schemas.closest_embedded_version(live.server), tell) as opened:
            tell("the history")
            history = history_schemas.build(opened, directory)
            found = adopting.match(live, history, opened)
        if not found.difference:
            tell("stamp")
            adopting.stamp(target, directory, found.revision, history[found.revision], tell)
    _answer(
        adopting.document(found) if as_json else adopting.page(found), good=not found.difference
    )


@app.command()
def doctor(
    database_url: Annotated[
        str,
        typer.Option(help="The database that is to be deployed; it is only read.", metavar="URL"),
    ],
    *,
    as_json: AsJSON = False,
) -> None:
    """Say what has to be mended in a database before it is deployed.

    Exit code 0: it is ready; 1: there is something to mend; 2: it could not be looked at.
    """
    with _exits(doctoring.refusal if as_json else None), _progress() as tell:
        target = urls.parse_url(database_url)
        tell("the database")
        directory = scripts()
        examined = doctoring.examine(target, directory)
        checks = list(examined.checks)
        if examined.live is not None:
            with _open(
                None, history_schemas.closest_embedded_version(examined.live.server), tell
            ) as opened:
                tell("the history")
                history = history_schemas.build(opened, directory)
            checks.append(doctoring.compared(examined.live, history))
    _answer(
        doctoring.document(target, checks) if as_json else doctoring.page(target, checks),
        good=doctoring.ready(checks),
    )


def main() -> None:
    """Run the command that the arguments name.

    What is wrong with them is said without repeating them where one may be a database URL.
    """
    try:
        code = app(prog_name="schema", standalone_mode=False)
    except typer.TyperException as error:
        if not _repeatable(error, sys.argv[1:]):
            error.message = (
                "One of the arguments is not understood; a database URL comes after --database-url."
            )
        rich_format_error(error)  # type: ignore[arg-type]  # of its classes, only the base is public
        code = error.exit_code
    sys.exit(code)


def _repeatable(error: typer.TyperException, arguments: list[str]) -> bool:
    """Whether Typer's complaint names nothing but options, or words that are no database URL."""
    if isinstance(error, typer.BadParameter):  # it names the option, and not what it was given
        return True
    named = getattr(error, "option_name", None)
    return all(_WORD.fullmatch(one) for one in ([named] if named else arguments))


def _answer(shown: str | Group, *, good: bool) -> None:
    """Print what was found, a JSON document or a page, and exit with 1 when it is not good."""
    if isinstance(shown, str):
        typer.echo(shown)
    else:
        output.console().print(shown)
    if not good:
        raise typer.Exit(1)


@contextmanager
def _exits(document: Callable[[str], str] | None = None) -> Iterator[None]:
    """Turn what ended the work into an exit code, and a sentence where there is one to say.

    `document` makes of the sentence what is printed for machines.
    """

    def refuse(sentence: str) -> typer.Exit:
        typer.echo(f"schema: {sentence}", err=True)
        if document is not None:
            typer.echo(document(sentence))
        return typer.Exit(2)

    try:
        yield
    except TerminatedError:
        raise typer.Exit(143) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except (CannotRunError, CommandError) as error:
        raise refuse(str(error)) from None
    except (DBAPIError, psycopg.Error) as error:
        raise refuse(f"The server ended the work: {first_error_line(error)}.") from None


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show what goes on, on a terminal; say nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda _what: None
        return
    with output.console(stderr=True).status("server") as status:
        yield status.update


@contextmanager
def _open(url: str | None, version: int, tell: Callable[[str], None]) -> Iterator[Server]:
    tell("server")
    _require_version(version)
    with open_server(None if url is None else urls.parse_url(url), version) as opened:
        yield opened


def _require_version(version: int) -> None:
    if version not in VERSIONS:
        known = " and ".join(str(one) for one in sorted(VERSIONS))
        raise CannotRunError(
            f"There is no embedded PostgreSQL {version}, only {known}; for another version name a"
            " server with --database-url."
        )
