"""The `schema` command: its subcommands and their options.

Each subcommand imports its modules when it runs, so that `schema --help` is fast.
"""

# ruff: noqa: PLC0415  # lazy imports, see above

import re
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from schema.cli.database_url import warn_of_password

_WORD = re.compile(r"-{0,2}[a-z0-9][a-z0-9-]*")
"""An option or a plain word, which cannot be a URL: an error may repeat it."""

app = typer.Typer(
    help="Check, show and serve the schema that the migrations build; compare databases with it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ServerURL = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        help="Use scratch databases on this server instead of an embedded one.",
        metavar="URL",
        show_default=False,
        callback=warn_of_password("set PGPASSWORD, and leave it out of the URL"),
    ),
]
DatabaseURL = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        help="The database; without it, the one in DATABASE_URL.",
        metavar="URL",
        show_default=False,
        callback=warn_of_password("set DATABASE_URL instead"),
    ),
]
Postgres = Annotated[
    str,
    typer.Option(
        help="Major version of the embedded server, or a folder with initdb and postgres.",
        metavar="16|18|FOLDER",
    ),
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def check(
    database_url: ServerURL = None,
    postgres: Postgres = "18",
    *,
    lint: Annotated[bool, typer.Option("--lint/--no-lint", help="Lint the SQL too.")] = True,
    as_json: AsJSON = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only what fails.")] = False,
) -> None:
    """Check that the schema builds, reverts, matches its models and isolates users.

    Exit code 0: every check passes; 1: one fails; 2: the checks could not run.
    """
    from schema.cli.check import run

    run(database_url, postgres, lint=lint, as_json=as_json, quiet=quiet)


@app.command()
def snapshot(database_url: ServerURL = None, postgres: Postgres = "18") -> None:
    """Rewrite schema.txt, models/version.py and the generated part of models/README.md."""
    from schema.cli.snapshot import run

    run(database_url, postgres)


@app.command()
def revision(  # noqa: PLR0913, PLR0917  # its options
    message: Annotated[
        str,
        typer.Option("-m", "--message", help="What it does, in the imperative.", metavar="TEXT"),
    ],
    why: Annotated[
        str | None, typer.Option(help="Why; for the docstring.", metavar="TEXT", show_default=False)
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            help="Drop it with what is in it, for this reason.",
            metavar="TABLE[.COLUMN]=REASON",
            show_default=False,
        ),
    ] = None,
    fill: Annotated[
        list[str] | None,
        typer.Option(
            help="What rows without a value get.",
            metavar="TABLE.COLUMN=EXPRESSION",
            show_default=False,
        ),
    ] = None,
    using: Annotated[
        list[str] | None,
        typer.Option(
            help="Change its type in place; the new value.",
            metavar="TABLE.COLUMN=EXPRESSION",
            show_default=False,
        ),
    ] = None,
    rewrite: Annotated[
        list[str] | None,
        typer.Option(
            help="Write every row anew at once, for this reason.",
            metavar="TABLE.COLUMN=REASON",
            show_default=False,
        ),
    ] = None,
    database_url: ServerURL = None,
    postgres: Postgres = "18",
) -> None:
    """Write the revisions that bring the migrations to the models, and refresh the generated files.

    Each is tried up and down first. A change that loses data asks for a decision, and writes
    nothing. Exit code 0: written, or nothing to do; 2: refused, nothing changed.
    """
    from schema.cli.exits import exit_codes
    from schema.cli.revision import given, run
    from schema.revision.decisions import Answers

    with exit_codes():
        answers = Answers(
            given("--drop", drop or ()),
            given("--using", using or ()),
            given("--fill", fill or ()),
            given("--rewrite", rewrite or ()),
        )
    run(message, why, answers, (database_url, postgres))


@app.command()
def rebase(database_url: ServerURL = None, postgres: Postgres = "18") -> None:
    """After a merge of the main branch: put this branch's revisions behind its head.

    Writes the generated files anew, also where git left conflicts in them. Merged revisions stay.
    """
    from schema.cli.rebase import run

    run(database_url, postgres)


@app.command()
def serve(
    port: Annotated[
        int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.", min=0, max=65535)
    ] = 0,
    postgres: Postgres = "18",
    *,
    seed: Annotated[bool, typer.Option("--seed", help="Fill the tables with rows.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Run it in the background.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the running one.")] = False,
) -> None:
    """Run this checkout's development server at the head revision; its data goes at the end.

    Its URLs stay the same at every start. It runs until Ctrl-C, or with --detach until --stop.
    """
    from schema.cli.serve import run

    run(port, postgres, seed=seed, detach=detach, stop=stop)


@app.command()
def reset(
    *,
    seed: Annotated[bool, typer.Option("--seed", help="Fill the tables with rows.")] = False,
) -> None:
    """Build the database of this checkout's development server anew, from the checked-out history.

    It never touches another server, DATABASE_URL's included.
    """
    from schema.cli.serve import reset

    reset(seed=seed)


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
            help="Create them on the server of this database.",
            metavar="URL",
            show_default=False,
            callback=warn_of_password("set DATABASE_URL instead, and give --apply"),
        ),
    ] = None,
    *,
    apply: Annotated[
        bool, typer.Option("--apply", help="Create them on the server of DATABASE_URL.")
    ] = False,
) -> None:
    """Print the SQL of a login for each group role, or create them; passwords are shown only once.

    DATABASE_URL alone changes nothing. An existing role that can bypass row security is refused.
    """
    from schema.cli.roles import run

    run(application, better_auth, database_url, apply=apply)


@app.command()
def drift(
    database_url: DatabaseURL = None,
    *,
    as_json: AsJSON = False,
) -> None:
    """Compare a live database with the history at its revision; it is only read.

    Exit code 0: no drift; 1: drift, which is shown; 2: it could not be compared.
    """
    from schema.cli.drift import run

    run(database_url, as_json=as_json)


@app.command()
def adopt(
    database_url: DatabaseURL = None,
    *,
    as_json: AsJSON = False,
) -> None:
    """Find the revision whose schema a database has, and record it there.

    Exit code 0: it is stamped; 1: it equals no revision, the nearest is shown, and nothing was
    changed; 2: the database or the role does not allow it.
    """
    from schema.cli.adopt import run

    run(database_url, as_json=as_json)


@app.command()
def doctor(
    database_url: DatabaseURL = None,
    *,
    as_json: AsJSON = False,
) -> None:
    """List what to fix in a database before a deploy; it is only read.

    Exit code 0: it is ready; 1: there are problems to fix; 2: it could not be checked.
    """
    from schema.cli.doctor import run

    run(database_url, as_json=as_json)


branch_app = typer.Typer(
    help="Make, show and delete Neon branches: NEON_PROJECT_ID and NEON_API_KEY say where.",
    no_args_is_help=True,
)
app.add_typer(branch_app, name="branch")

BranchName = Annotated[
    str | None, typer.Argument(help="Its name, without schema-.", show_default=False)
]
PullRequest = Annotated[
    int | None,
    typer.Option("--pr", help="The number of its pull request.", min=1, show_default=False),
]
Parent = Annotated[
    str | None,
    typer.Option(
        help="Name or id of its parent; otherwise the parent that the branch has.",
        metavar="BRANCH",
        show_default=False,
    ),
]
Days = Annotated[int, typer.Option(help="Neon deletes it after so many days.", min=1, max=30)]
Database = Annotated[
    str | None,
    typer.Option(help="The database, if the branch has several.", show_default=False),
]


@branch_app.command("create")
def branch_create(  # noqa: PLR0913  # its options
    name: BranchName = None,
    pull_request: PullRequest = None,
    parent: Parent = None,
    days: Days = 7,
    database: Database = None,
    *,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy all rows; the default for a new branch.")
    ] = False,
    schema_only: Annotated[
        bool, typer.Option("--schema-only", help="Copy the schema only, and make rows.")
    ] = False,
    anonymised: Annotated[
        bool,
        typer.Option(
            "--anonymised", "--anonymized", help="Mask secrets and personal data (Neon's beta)."
        ),
    ] = False,
    restore_point: Annotated[
        bool, typer.Option("--restore-point", help="Keep the parent as it is now; no compute.")
    ] = False,
    when_behind: Annotated[
        bool,
        typer.Option(
            "--when-behind", help="Only if the database in DATABASE_URL is not at the head."
        ),
    ] = False,
    github_output: Annotated[
        str | None,
        typer.Option(
            help="An output of a GitHub job for the URL, in hexadecimal.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a branch, or bring the one of that name to its parent's newest state.

    A copy holds what its parent holds, users' secrets too. Its URL: schema branch url.
    """
    from schema.cli import branch

    if when_behind and not restore_point:
        raise typer.BadParameter("--when-behind belongs to --restore-point.")
    if restore_point:
        if name or pull_request or copy or schema_only or anonymised:
            raise typer.BadParameter("--restore-point names the branch itself, and copies all.")
        branch.create_restore_point(parent, days, when_behind=when_behind)
        return
    kind = branch.kind_from(copy=copy, schema_only=schema_only, anonymised=anonymised)
    target = branch.Target(name, pull_request, database)
    branch.create(target, parent, kind, days, github_output)


@branch_app.command("reset")
def branch_reset(
    name: BranchName = None,
    pull_request: PullRequest = None,
    parent: Parent = None,
    days: Days = 7,
    database: Database = None,
) -> None:
    """Bring a branch back to its parent's newest state; what was done on it is gone."""
    from schema.cli import branch

    branch.reset(branch.Target(name, pull_request, database), parent, days)


@branch_app.command("url")
def branch_url(
    name: BranchName = None, pull_request: PullRequest = None, database: Database = None
) -> None:
    """Print the URL of a branch's database, with the password, on the direct host."""
    from schema.cli import branch

    branch.url(branch.Target(name, pull_request, database))


@branch_app.command("list")
def branch_list(*, as_json: AsJSON = False) -> None:
    """List the branches that this command made."""
    from schema.cli import branch

    branch.show_all(as_json=as_json)


@branch_app.command("delete")
def branch_delete(name: BranchName = None, pull_request: PullRequest = None) -> None:
    """Delete a branch; one that is gone already is no error."""
    from schema.cli import branch

    branch.delete(branch.Target(name, pull_request))


@branch_app.command("prune")
def branch_prune() -> None:
    """Delete the branches whose pull requests are closed, in GITHUB_REPOSITORY."""
    from schema.cli import branch

    branch.prune()


@branch_app.command("try")
def branch_try(parent: Parent = None, database: Database = None) -> None:
    """Run the life of a throwaway branch on a real project, and print what differs there.

    It costs one branch for a minute, and always deletes it. Exit code 1: something differs.
    """
    from schema.cli import branch

    branch.try_project(parent, database)


@app.command()
def review(  # noqa: PLR0913, PLR0917  # its options
    base: Annotated[
        str | None,
        typer.Option(
            help="The ref that the revisions are new against; otherwise the main branch.",
            metavar="REF",
            show_default=False,
        ),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            help="Run them on this database, and leave it at the head; needs --disposable.",
            metavar="URL",
            show_default=False,
            callback=warn_of_password("set PGPASSWORD, and leave it out of the URL"),
        ),
    ] = None,
    form: Annotated[
        Literal["markdown", "html", "json"], typer.Option("--format", help="The page's format.")
    ] = "markdown",
    output: Annotated[
        Path | None,
        typer.Option(help="Write the page to this file.", metavar="FILE", show_default=False),
    ] = None,
    rows: Annotated[
        int, typer.Option(help="How many rows to generate, in all tables.", min=0)
    ] = 100_000,
    postgres: Postgres = "18",
    *,
    disposable: Annotated[
        bool, typer.Option("--disposable", help="The database may be changed: it is a copy.")
    ] = False,
) -> None:
    """Show what this branch's new revisions do to the schema, from a run of them on rows.

    Exit code 0: nothing blocks; 1: a finding must be fixed or accepted; 2: it could not be run.
    """
    from schema.cli.review import run
    from schema.review.runner import Options

    options = Options(base=base, postgres=postgres, rows=rows)
    run(options, database_url, form, output, disposable=disposable)


@app.command("better-auth")
def better_auth(
    config: Annotated[
        Path,
        typer.Option(
            help="The JavaScript module that exports Better Auth, or its options.",
            metavar="FILE",
            show_default=False,
        ),
    ],
    database_url: ServerURL = None,
    postgres: Postgres = "18",
    *,
    write: Annotated[bool, typer.Option("--write", help="Add what is missing to models/.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Compare what an application's Better Auth needs, plugins included, with the schema.

    The configuration is run, with a scratch database in place of its own. Exit code 0: no
    difference, or --write has added all; 1: a difference; 2: it could not be compared.
    """
    from schema.cli.better_auth import run

    run(config, database_url, postgres, write=write, as_json=as_json)


github_app = typer.Typer(
    help="Tell people on GitHub: GITHUB_REPOSITORY and GITHUB_TOKEN say where.",
    no_args_is_help=True,
)
app.add_typer(github_app, name="github")


@github_app.command("comment")
def github_comment(
    page: Annotated[Path, typer.Argument(help="The page, in Markdown.", show_default=False)],
    head: Annotated[
        str, typer.Option(help="The commit at the head of the pull request.", metavar="SHA")
    ],
    number: Annotated[int | None, typer.Option(help="The number of the pull request.")] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", help="Its branch, without its number.", metavar="OWNER:BRANCH"),
    ] = None,
) -> None:
    """Write the page as the comment of the pull request with that head, in place.

    The page is data: it calls no person, loads nothing, and is cut to what a comment can hold.
    Without the file, the comment says that the review could not run.
    """
    from schema.cli import github

    if (number is None) == (source is None):
        raise typer.BadParameter("name the pull request with --number or --from.")
    github.comment(page, head, number, source)


@github_app.command("issue")
def github_issue(
    document: Annotated[
        Path, typer.Argument(help="What schema drift --json printed.", show_default=False)
    ],
) -> None:
    """Open, update or close the issue about drift, as the document says.

    Exit code 2: the database could not be compared, and the issue stays as it is.
    """
    from schema.cli import github

    github.issue(document)


@github_app.command("release")
def github_release(
    tag: Annotated[str, typer.Argument(help="Its tag.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="What schema release wrote.", show_default=False)],
) -> None:
    """Make the release of a tag on GitHub, with the wheel attached."""
    from schema.cli import github

    github.release(tag, folder)


@app.command()
def release(
    tag: Annotated[str, typer.Argument(help="Its tag, such as v0.1.0.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Where to write.", show_default=False)],
) -> None:
    """Build the wheel of the models, try it installed alone, and write the notes of a version."""
    from schema.cli.release import run

    run(tag, folder)


def main() -> None:
    """Run the command in the arguments.

    An error about the arguments does not repeat them if one of them may be a database URL.
    """
    try:
        code = app(prog_name="schema", standalone_mode=False)
    except typer.TyperException as error:
        if not _repeatable(error, sys.argv[1:]):
            error.message = (
                "One of the arguments is unknown; a database URL must follow --database-url."
            )
        from typer.rich_utils import rich_format_error

        rich_format_error(error)  # type: ignore[arg-type]  # only the base class is public
        code = error.exit_code
    sys.exit(code)


def _repeatable(error: typer.TyperException, arguments: list[str]) -> bool:
    """Whether Typer's message contains only options and words that are not a database URL."""
    if isinstance(error, typer.BadParameter):  # it names the option, not the value
        return True
    named = getattr(error, "option_name", None)
    return all(_WORD.fullmatch(one) for one in ([named] if named else arguments))


if __name__ == "__main__":
    main()
