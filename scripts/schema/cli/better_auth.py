"""`schema better-auth`: print the result as a page or as JSON."""

import json
from collections.abc import Iterator
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from migrations.postgres import visible
from schema.better_auth.differences import NOT_NEEDED, Difference
from schema.better_auth.examination import Examination, Written, examine
from schema.better_auth.examination import write as add
from schema.better_auth.needs import Field, Table
from schema.better_auth.process import require_usable
from schema.cli.exits import exit_codes, print_result
from schema.cli.output import json_document, progress
from schema.generate.files import name
from schema.postgres.scratch import open_server
from schema.project import scripts
from schema.revisions.history import single_head
from schema.text import pluralize

_FIELDS = (
    "equal",
    "error",
    "better_auth",
    "head",
    "server",
    "limitations",
    "differences",
    "written",
    "refused",
)

_NO_REVISION = "The models have it already: write the revision (README.md, Changing the schema)."


def run(
    config: Path, database_url: str | None, postgres: str, *, write: bool, as_json: bool
) -> None:
    """Compare the configuration with the schema, add what is missing, and print both."""
    with exit_codes(error_document if as_json else None), progress() as show:
        require_usable(config)  # before a server starts
        with open_server(database_url, postgres, show) as server:
            examination = examine(server, config, show)
            written = add(server, examination, show) if write else None
    head = single_head(scripts())
    ok = written.complete if written else not examination.differences
    shown = (
        document(examination, written, head, server.version)
        if as_json
        else page(examination, written, f"{config.name} and the schema at {head or 'no head'}")
    )
    print_result(shown, ok=ok)


def document(
    examination: Examination, written: Written | None, head: str | None, server: str
) -> str:
    """Format the result as JSON; README.md describes the fields."""
    return json_document(
        _FIELDS,
        equal=not examination.differences,
        better_auth=examination.needs.version,
        head=head,
        server=server,
        limitations=_limitations(examination),
        differences=[_as_fields(one) for one in examination.differences],
        written=[name(path) for path in written.files] if written else [],
        refused=written.refused if written else [],
    )


def error_document(message: str) -> str:
    """Format an error as JSON."""
    return json_document(
        _FIELDS, error=message, limitations=[], differences=[], written=[], refused=[]
    )


def page(examination: Examination, written: Written | None, compared: str) -> Group:
    """Format the result as text: what is missing, what differs, what is not used."""
    differences = examination.differences
    title = f"Better Auth {examination.needs.version}: {compared}"
    lines: list[RenderableType] = [Text(title, "bold")]
    lines += [Text(f"! {sentence}", "yellow") for sentence in _limitations(examination)]
    if not differences:
        verdict = "✓ No difference: the schema is what this configuration needs."
        return Group(*lines, Text(verdict, "bold green"))
    missing = [one for one in differences if one.kind in {"missing-table", "missing-column"}]
    others = [one for one in differences if one not in missing and one.kind not in NOT_NEEDED]
    unused = [one for one in differences if one.kind in NOT_NEEDED]
    number = pluralize(len(differences), "difference")
    lines.append(Text(f"✗ {number}.", "bold red"))
    lines += _missing([one for one in missing if one.where != "history"])
    if unwritten := [one for one in missing if one.where == "history"]:
        lines += [Text(), Text(f"! {_NO_REVISION}", "yellow"), *_missing(unwritten)]
    if others:
        lines += [Text(), *(Text(visible(f"✗ {_sentence(one)}"), "red") for one in others)]
    if unused:
        lines += [Text(), *(Text(visible(f"! {_sentence(one)}"), "yellow") for one in unused)]
    return Group(*lines, *_what_next(examination, written))


def _limitations(examination: Examination) -> list[str]:
    """Say what could not be compared."""
    if not examination.needs.adapter:
        return []
    return [
        "The configuration's database is an adapter with a schema of its own, such as Drizzle's:"
        " the names in that schema were not compared."
    ]


def _sentence(difference: Difference) -> str:
    only = {"both": "", "history": " (in the history only)", "models": " (in the models only)"}
    return f"{difference.sentence}{only[difference.where]}."


def _missing(differences: list[Difference]) -> Iterator[RenderableType]:
    """Format the tables and columns that are missing as one table."""
    if not differences:
        return
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("missing in", "column", "type", "NULL", "besides"):
        grid.add_column(heading)
    for one in differences:
        match one.needs:
            case Table() as table:
                plugin = f", of the plugin {table.plugin}" if table.plugin else ""
                grid.add_row(Text(visible(f"{table.name} (new{plugin})"), "red"))
                for field in table.fields:
                    grid.add_row("", *_cells(field, table.plugin))
            case Field() as field:
                grid.add_row(Text(visible(one.table or ""), "red"), *_cells(field, None))
            case _:
                pass
    yield from (Text(), Padding(grid, (0, 0, 0, 2), expand=False))


def _cells(field: Field, plugin: str | None) -> tuple[Text, ...]:
    """Format a column that is needed; `plugin` is said already."""
    besides = ["unique"] if field.unique else ["index"] if field.index else []
    if field.reference:
        target = f"{field.reference.table}.{field.reference.column}"
        besides.append(f"references {target} ON DELETE {field.reference.on_delete}")
    if default := _default(field):
        besides.append(f"default {default}")
    if field.plugin and field.plugin != plugin:
        besides.append(f"plugin {field.plugin}")
    null = "NOT NULL" if field.required else "NULL"
    return tuple(Text(visible(cell)) for cell in (field.name, field.type, null, ", ".join(besides)))


def _default(field: Field) -> str | None:
    if field.default is None:
        return None
    if field.default.now:
        return "CURRENT_TIMESTAMP"
    value = field.default.value
    return f"'{value}'" if isinstance(value, str) else json.dumps(value)


def _what_next(examination: Examination, written: Written | None) -> Iterator[Text]:
    """Say what was written, what was not, and what to do."""
    yield Text()
    if written is None:
        missing = {"missing-table", "missing-column", "missing-unique", "missing-index"}
        if any(one.kind in missing and one.where != "history" for one in examination.differences):
            yield Text("  → --write adds what is missing to the models.")
        return
    for path, new in written.files.items():
        yield Text(f"{'+' if new else '~'} {name(path)} {'is new' if new else 'has more'}.")
    for sentence in written.refused:
        yield Text(visible(f"✗ {sentence}."), "red")
    if written.files:
        yield Text("  → Read it, and write the revision (README.md, Changing the schema).")
    else:
        yield Text("Nothing was written.")


def _as_fields(difference: Difference) -> dict[str, object]:
    """Return the fields of a difference in JSON."""
    match difference.needs:
        case Table() as table:
            columns = list(table.fields)
        case Field() as field:
            columns = [field]
        case _:
            columns = []
    return {
        "kind": difference.kind,
        "where": difference.where,
        "table": difference.table,
        "column": difference.column,
        "message": f"{difference.sentence}.",
        "needs": [_column(one) for one in columns],
    }


def _column(field: Field) -> dict[str, object]:
    reference = field.reference
    return {
        "column": field.name,
        "type": field.type,
        "nullable": not field.required,
        "unique": field.unique,
        "index": field.index,
        "references": f"{reference.table}.{reference.column}" if reference else None,
        "on_delete": reference.on_delete if reference else None,
        "default": _default(field),
        "plugin": field.plugin,
    }
