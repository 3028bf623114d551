"""Say what differs between the history and a database, part by part, in words for people."""

import re
from collections.abc import Collection, Iterable, Iterator

from migrations.snapshot import Fact, Snapshot, fingerprints
from schema.ddl.definition import OWNER, column, privileges, split_comment
from schema.ddl.objects import split_heading
from schema.live.difference import Difference, Severity

_ISOLATION = ("inherits ", "row security", "policy ", "grant ", "owner", "member of ", "attributes")
_DATA = ("column ", "constraint ", "of type", "partition of ", "partitioned by")
_DATA_OBJECTS = ("table", "foreign table", "sequence", "type", "domain")
_ISOLATION_OBJECTS = ("role", "default privileges of", "publication", "subscription")
_ISOLATION_SETTINGS = (
    "setting row_security",
    "setting session_replication_role",
    "setting role",
    "setting search_path",
    "setting app.",
)
_ISOLATION_OPTIONS = re.compile(r"security_(invoker|barrier)=|SECURITY DEFINER")

_SHORT = 70
"""The longest definition that a sentence repeats."""

_ORDER = list(Severity)


def find(expected: Snapshot, found: Snapshot, owned: Collection[str]) -> list[Difference]:
    """Return the differences in the objects that the history owns, the worst first.

    `owned` are names as in fingerprints.txt.
    """
    old, new = _by_object(expected, owned), _by_object(found, owned)
    differences: list[Difference] = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, {}), new.get(name, {})
        (heading, _), *_rest = before or after
        if fingerprints.is_shared(heading) or (before and after):
            differences += _parts(before, after)
        else:
            differences.append(_whole(before, after))
    return ordered(differences)


def alarming(snapshot: Snapshot, foreign: Collection[str]) -> set[str]:
    """Return objects that no revision has and that change who may read or write our rows.

    They are compared like the history's own: settings of the database that isolation depends on,
    privileges that the owner gives on every table to come, tables that inherit from ours.
    """
    heirs = {
        f"{word} {fact.object.partition(' ')[2]}"
        for fact in snapshot
        for word in ("inherits", "partition of")
        if fact.object.startswith("table ") and fingerprints.object_name(fact) not in foreign
    }
    return {
        name
        for fact in snapshot
        if (name := fingerprints.object_name(fact)) in foreign
        and (
            fact.part.startswith(_ISOLATION_SETTINGS)
            or fact.object == f"default privileges of {OWNER}"
            or fact.part in heirs
        )
    }


def ordered(differences: Iterable[Difference]) -> list[Difference]:
    """Sort differences by severity; those of one object stay together."""
    return sorted(differences, key=lambda one: (_ORDER.index(one.severity), one.object, one.part))


def severity(heading: str, part: str, definitions: Iterable[str | None] = ()) -> Severity:
    """Judge a difference by the kind of its object and part, and by what it says."""
    kind, _ = split_heading(heading)
    said = " ".join(one for one in definitions if one)
    if part == "comment":
        return Severity.COSMETIC
    if (
        kind in _ISOLATION_OBJECTS
        or part.startswith((*_ISOLATION, *_ISOLATION_SETTINGS))
        or _ISOLATION_OPTIONS.search(said)
    ):
        return Severity.ISOLATION
    if part.startswith(_DATA) or (not part and kind in _DATA_OBJECTS):
        return Severity.DATA
    return Severity.BEHAVIOUR


def _by_object(snapshot: Snapshot, owned: Collection[str]) -> dict[str, dict[tuple[str, str], str]]:
    found: dict[str, dict[tuple[str, str], str]] = {}
    for fact in snapshot:
        name = fingerprints.object_name(fact)
        if name in owned:
            found.setdefault(name, {})[fact.object, fact.part] = fact.definition
    return found


def _parts(
    before: dict[tuple[str, str], str], after: dict[tuple[str, str], str]
) -> Iterator[Difference]:
    for key in sorted(before.keys() | after.keys()):
        was, found = before.get(key), after.get(key)
        if was != found:
            yield _difference(*key, was, found)


def _difference(heading: str, part: str, was: str | None, found: str | None) -> Difference:
    judged = severity(heading, part, (was, found))
    if was is not None and found is not None and split_comment(was)[0] == split_comment(found)[0]:
        judged = Severity.COSMETIC
    return Difference(heading, part, was, found, judged, sentence(heading, part, was, found))


def _whole(before: dict[tuple[str, str], str], after: dict[tuple[str, str], str]) -> Difference:
    (heading, _), *_rest = before or after
    text = "; ".join(f"{part} {one}".strip() for (_, part), one in (before or after).items())
    inherits = any(part.startswith("inherits ") for _, part in before or after)
    judged = severity(heading, "inherits " if inherits else "", (before or after).values())
    if before:
        rows = ", and its rows with it" if heading.startswith("table ") else ""
        said = f"{heading} was removed{rows}"
        return Difference(heading, "", text, None, judged, said)
    return Difference(heading, "", None, text, judged, f"{heading} was added")


def sentence(heading: str, part: str, was: str | None, found: str | None) -> str:
    """Say what was done to a part, without a full stop."""
    kind, name = split_heading(heading)
    word, _, rest = part.partition(" ")
    if word == "grant":
        said = _grant(heading, part, was, found)
    elif part == "row security" and found is not None:
        said = f"row security of {heading} {_row_security(was or '', found)}"
    elif word == "column":
        said = f"column {name}.{rest} {_column(was, found)}"
        if found is None and kind == "table":
            said += ", and its values with it"
    elif word == "index" and found is not None and "INVALID" in found:
        said = f"{part} of {heading} is INVALID"
    elif word in {"index", "constraint", "policy", "trigger", "rule"}:
        said = f"{part} of {heading} {_verb(was, found)}"
    elif word == "setting" or kind == "default privileges of":
        said = f"{heading}: {part} {_change(was, found)}"
    else:
        said = f"{part} of {heading} {_change(was, found)}"
    return said


def _row_security(was: str, found: str) -> str:
    if was.startswith("enabled") != found.startswith("enabled"):
        return f"was {found.partition(',')[0]}"
    return "is forced" if found.endswith("forced") else "is no longer forced"


def _column(was: str | None, found: str | None) -> str:
    if was is None or found is None:
        return _verb(was, found)
    old_body, old_comment = split_comment(was)
    body, comment = split_comment(found)
    old, new = column(old_body), column(body)
    changes = [
        f"its {field} {_change(old[field], new[field])}"
        for field in ("type", "default", "collation")
        if old and new and old[field] != new[field]
    ]
    if old and new and old["required"] != new["required"]:
        changes.append("it may be null" if old["required"] else "it may not be null")
    if old_comment != comment:
        changes.append(f"its comment {_verb(old_comment, comment)}")
    return f"was changed: {', '.join(changes)}" if changes else "was changed"


def _grant(heading: str, part: str, was: str | None, found: str | None) -> str:
    column_words, _, role = part.removeprefix("grant ").rpartition("to ")
    before, after = privileges(was), privileges(found)
    on = f"{column_words.strip()} of {heading}" if column_words.strip() else heading
    on = on.removeprefix("on ")
    said = []
    if gained := after - before:
        said.append(f"was granted {', '.join(sorted(gained))}")
    if lost := before - after:
        said.append(f"lost {', '.join(sorted(lost))}")
    return f"{role} {' and '.join(said) or 'was changed'} on {on}"


def _verb(was: object, found: object) -> str:
    if was is None:
        return "was added"
    return "was removed" if found is None else "was changed"


def _change(was: str | None, found: str | None) -> str:
    if was is None and found is not None and len(found) < _SHORT:
        return f"was set to {found}" if found else "was added"
    if was is None or found is None or len(was) > _SHORT or len(found) > _SHORT:
        return _verb(was, found)
    return f"was changed from {was} to {found}"


def facts_of(snapshot: Snapshot, names: Collection[str]) -> tuple[Fact, ...]:
    """Return the facts of these objects, named as in fingerprints.txt."""
    return tuple(fact for fact in snapshot if fingerprints.object_name(fact) in names)
