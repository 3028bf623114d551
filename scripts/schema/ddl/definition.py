"""Read the definitions in a snapshot back into their fields, and write SQL names and literals."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from migrations.snapshot import Snapshot

OWNER = "<owner>"
"""How a snapshot names the owner of the database."""

CURRENT_USER = "CURRENT_USER"
"""The owner's name in statements that the owner executes, in any database."""

_COMMENT = re.compile(r'(?:^|  )comment (".*")$', re.DOTALL)

_COLUMN = re.compile(
    r"""(?P<type>.+?)
        (?:\ \ collation\ (?P<collation>\S+))?
        (?P<required>\ \ not\ null)?
        (?:\ \ default\ (?P<default>.*?)
          |\ \ generated\ (?P<generated>.*?)\ (?P<kept>stored|virtual))?
        (?:\ \ identity\ (?P<identity>always|by\ default))?
        (?:\ \ storage\ (?P<storage>\w+))?
        (?:\ \ compression\ (?P<compression>\w+))?
        (?:\ \ statistics\ (?P<statistics>\d+))?
        (?:\ \ options\ (?P<options>.*?))?
        (?:\ \ foreign\ options\ (?P<foreign_options>.*?))?
        (?:\ \ (?P<inherited>inherited(?:\ and\ local)?))?
    """,
    re.VERBOSE | re.DOTALL,
)

_POLICY = re.compile(
    r"(?P<kind>permissive|restrictive)  for (?P<command>\w+)  to (?P<roles>.*?)"
    r"(?:  using (?P<using>.*?))?(?:  with check (?P<check>.*))?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Names:
    """How statements are written: the names that differ between databases, quoted."""

    database: str
    owner: str
    guarded: bool = True
    """Whether what holds rows or values is dropped only after a statement has found it empty."""
    conversions: Mapping[str, str] = field(default_factory=dict)
    """The expression of a column's new value when its type changes, by `table.column`."""

    def role(self, name: str) -> str:
        """Return the SQL name of a role in a snapshot."""
        return self.owner if name == OWNER else name


def by_part(snapshot: Snapshot) -> dict[tuple[str, str], str]:
    """Return the definition of each part of each object."""
    return {(fact.object, fact.part): fact.definition for fact in snapshot}


def literal(text: str) -> str:
    """Write a string literal."""
    quoted = text.replace("'", "''")
    return f"E'{quoted.replace('\\', '\\\\')}'" if "\\" in text else f"'{quoted}'"


def split_comment(definition: str) -> tuple[str, str | None]:
    """Split a part's definition from its comment."""
    found = _COMMENT.search(definition)
    if found is None:
        return definition, None
    return definition[: found.start()], json.loads(found[1])


def fields(definition: str) -> list[str]:
    """Split a definition whose fields hold no two blanks in a row."""
    return [field for field in definition.split("  ") if field]


def column(definition: str) -> Mapping[str, str | None]:
    """Return the fields of a column's definition, without its comment; {} if it is not clear."""
    found = _COLUMN.fullmatch(split_comment(definition)[0])
    return found.groupdict() if found else {}


def policy(definition: str) -> Mapping[str, str | None]:
    """Return the fields of a policy's definition, without its comment; {} if it is not clear."""
    found = _POLICY.fullmatch(definition)
    return found.groupdict() if found else {}


def privileges(definition: str | None) -> set[str]:
    """Return the privileges in a grant's definition; one with the grant option ends in a star."""
    return set() if definition in {None, "none"} else set(str(definition).split(", "))


def options(definition: str | None) -> dict[str, str]:
    """Return storage parameters by name."""
    pairs = (one.partition("=") for one in (definition or "").split(", ") if one)
    return {name: value for name, _, value in pairs}


def standing_alone(names: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern of SQL names, as snapshots write them, that are no part of longer ones."""
    return re.compile(rf'(?<![\w"])(?:{"|".join(map(re.escape, names))})(?![\w"])')


def schema_prefix(name: str) -> str:
    """Return the schema of a qualified name with its dot; '' in public."""
    found = re.match(r'(?:"(?:[^"]|"")*"|[^".]+)\.', name)
    return found[0] if found else ""
