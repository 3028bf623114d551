"""The body of `upgrade` or `downgrade`, from the steps that were tried."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from migrations.snapshot import Snapshot
from schema.ddl.definition import schema_prefix
from schema.ddl.objects import NO_OPERATION, split_heading
from schema.ddl.steps import Step
from schema.revision.code import calls, columns
from schema.revision.code.literals import has_newline_in_literal, string, unquoted
from schema.sql_lint.sqlfluff import laid_out

_DROP_INDEX = re.compile(r"DROP INDEX (?P<index>.+)")
_INLINE = ("PRIMARY KEY ", "UNIQUE ", "CHECK ", "FOREIGN KEY ")
"""The constraints of a new table, in the order in which they are written."""
_WIDTH = 90
"""Characters of a line of SQL, which is indented twice."""
_PRETTY = (
    (re.compile(r"\(\s*SELECT (\w+)\(\) AS \1\)"), r"(SELECT \1())"),
    (re.compile(r"\((\(SELECT \w+\(\)\))\)"), r"\1"),
    (re.compile(r" AS PERMISSIVE(?= FOR )"), ""),
    (re.compile(r" FOR ALL(?= TO )"), ""),
    (re.compile(r" (?=USING \(|WITH CHECK \(|FOR EACH (?:ROW|STATEMENT) )"), "\n"),
)
"""How policies and triggers are written shorter than PostgreSQL shows them."""
_CLAUSES = re.compile(r" (?=CHECK \(|FOREIGN KEY \(|REFERENCES |ON DELETE |ON UPDATE |NOT VALID)")


type Orders = Mapping[str, list[str]]
"""The columns of each table, in their order."""


type Checks = Mapping[tuple[str, str], tuple[str, str]]
"""Of a CHECK, by table and part: its definition as PostgreSQL shows it, and as the models do."""


@dataclass
class Body:
    """The code of a function, and what it needs at the module's level."""

    lines: list[str] = field(default_factory=list)
    """In the transaction."""
    concurrent: list[str] = field(default_factory=list)
    """After it, in an autocommit block; each line can be executed again."""
    constants: dict[str, str] = field(default_factory=dict)
    """Texts whose blanks are a part of the schema, by name."""


@dataclass(frozen=True)
class Setting:
    """What the code of a direction depends on."""

    before: Snapshot
    after: Snapshot
    database: str
    """The scratch database's name in the statements."""
    orders: Orders
    checks: Checks
    suffix: str = ""
    """Tells the constants of a downgrade from those of the upgrade."""


def body(steps: Sequence[Step], setting: Setting) -> Body:
    """Write the steps of one direction."""
    writer = _Writer(steps, setting)
    for step in steps:
        writer.add(step)
    if (
        writer.body.concurrent
    ):  # the transaction is committed before, and runs again after a failure
        again = re.compile(r"^(op\.drop_constraint\(.*)\)$", re.DOTALL)
        writer.body.lines = [again.sub(r"\1, if_exists=True)", one) for one in writer.body.lines]
    return writer.body


class _Writer:
    """Collects the code of one direction."""

    def __init__(self, steps: Sequence[Step], setting: Setting) -> None:
        self.setting = setting
        self.body = Body()
        self._parts: dict[str, dict[str, str]] = {}
        for fact in setting.after:
            definition = self._as_in_models(fact.definition, (fact.object, fact.part))
            self._parts.setdefault(fact.object, {})[fact.part] = definition
        there = {fact.object for fact in setting.before}
        self._in_use = {one for one in there & self._parts.keys() if one.startswith("table ")}
        self._inlined = set(self._inline(steps, there))

    def add(self, step: Step) -> None:
        if (step.object, step.part) in self._inlined:
            return
        if _creates_table(step):
            self._create_table(step)
            return
        added = calls.call(step.statements[0], self._of(step)) if step.statements else None
        for number, sql in enumerate(step.statements):
            says_comment = sql.startswith("COMMENT ON COLUMN ")
            if number and says_comment and str(added).startswith("op.add_column("):
                continue  # the call has it
            self._statement(sql, step)

    def _as_in_models(self, sql: str, key: tuple[str, str]) -> str:
        shown, written = self.setting.checks.get(key, ("", ""))
        return sql.replace(shown, written, 1)

    def _of(self, step: Step) -> Mapping[str, str]:
        return self._parts.get(step.object, {})

    def _inline(self, steps: Sequence[Step], there: set[str]) -> Iterator[tuple[str, str]]:
        """Yield the constraints and comments that `op.create_table` makes with its table."""
        made = set(there)
        for step in filter(_creates_table, steps):
            made.add(step.object)
            if self._table_call(step, []) is None:
                continue
            for part, definition in self._of(step).items():
                if part == "comment" or _is_inline(part, definition, made):
                    yield step.object, part

    def _table_call(self, step: Step, constraints: list[str]) -> str | None:
        name = step.object.removeprefix("table ")
        order = list(self.setting.orders.get(name, []))
        return calls.create_table(name, self._of(step), order, constraints)

    def _create_table(self, step: Step) -> None:
        parts = self._of(step)
        inline = [part for of, part in self._inlined if of == step.object and part != "comment"]

        def rank(part: str) -> tuple[bool, ...]:
            return tuple(not parts[part].startswith(kind) for kind in _INLINE)

        code = self._table_call(step, sorted(sorted(inline), key=rank))
        self.body.lines.append(code or self._execute(step.statements[0], step))
        for sql in step.statements[1:]:
            if code is None or not sql.startswith("COMMENT ON COLUMN "):
                self._statement(sql, step)

    def _statement(self, sql: str, step: Step) -> None:
        if sql == NO_OPERATION:
            return
        sql = self._as_in_models(sql, (step.object, step.part))
        concurrently = step.object in self._in_use and "partitioned by" not in self._of(step)
        code: str | None
        if dropped := _DROP_INDEX.fullmatch(sql):
            code = calls.drop_index(dropped["index"], step.object, concurrently=concurrently)
        elif (code := calls.create_index(sql, concurrently=concurrently)) and concurrently:
            index = sql.partition(" ON ")[0].rpartition("INDEX ")[2]
            index = schema_prefix(step.object.removeprefix("table ")) + index
            again = calls.drop_index(index, step.object, concurrently=True)
            if again not in self.body.concurrent:
                self.body.concurrent.append(again)
        after = concurrently and (code is not None or self._is_built(step))
        code = code or calls.call(sql, self._of(step)) or self._execute(sql, step)
        (self.body.concurrent if after else self.body.lines).append(code)

    def _is_built(self, step: Step) -> bool:
        """Whether a step builds an index concurrently: its other statements follow."""
        return step.part.startswith("index ") and any(
            calls.create_index(sql, concurrently=True) for sql in step.statements
        )

    def _execute(self, sql: str, step: Step) -> str:
        """Write a statement as text."""
        if self.setting.database in sql:
            sql = _for_any_database(sql, self.setting.database)
        text = columns.escaped(_laid_out(sql, step))
        is_body = "$" in text and "\n" in text and not text.startswith("DO ")
        if '"""' in text:
            return f"op.execute({string(text)})"
        if is_body or has_newline_in_literal(text):
            name = self._constant(step)  # a body, whose blanks are facts
            self.body.constants[name] = text
            return f"op.execute({name})"
        if ("\n" not in text and len(text) < _WIDTH - 10) or text.endswith('"'):
            return f"op.execute({string(text)})"
        raw = "r" if "\\" in text else ""
        lines = [f"        {line}" if line else "" for line in text.splitlines()]
        too_long = any(len(line) > _WIDTH + 10 for line in lines)
        note = "  # noqa: E501  # it cannot be broken" if too_long else ""
        return f'op.execute({raw}"""\n' + "\n".join(lines) + f'\n    """){note}'

    def _constant(self, step: Step) -> str:
        _, name = split_heading(step.object)
        words = re.sub(r"\W+", "_", unquoted(name.partition("(")[0])).strip("_").upper() or "BODY"
        candidate = base = f"{words}{self.setting.suffix}"
        number = 2
        while candidate in self.body.constants:
            candidate, number = f"{base}_{number}", number + 1
        return candidate


def _creates_table(step: Step) -> bool:
    return (
        step.part == ""
        and step.object.startswith("table ")
        and any(one.startswith("CREATE") for one in step.statements[:1])
    )


def _is_inline(part: str, definition: str, made: set[str]) -> bool:
    if not part.startswith("constraint ") or not definition.startswith(_INLINE):
        return False
    if columns.constraint(part.removeprefix("constraint "), definition) is None:
        return False
    key = columns.reference(definition)
    if key is None:
        return True
    target = ".".join(str(key[one]) for one in ("schema", "table") if key[one])
    return f"table {target}" in made


def _laid_out(sql: str, step: Step) -> str:
    if step.part.startswith(("policy ", "trigger ")):
        for pattern, replacement in _PRETTY:
            sql = pattern.sub(replacement, sql)
    elif step.part.startswith("constraint ") and len(sql) > _WIDTH:
        sql = _CLAUSES.sub("\n", sql)
    return laid_out(sql, _WIDTH)


def _for_any_database(sql: str, database: str) -> str:
    """Write a statement that names the database, which a revision does not know."""
    text = sql.replace("%", "%%").replace(database, "%I").replace("'", "''")
    return f"DO $$\nBEGIN\n  EXECUTE format('{text}', current_database());\nEND\n$$"
