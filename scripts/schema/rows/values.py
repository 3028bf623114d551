"""Values of each type, as PostgreSQL reads them from text: the awkward ones first, then others.

They are candidates: what a CHECK or a length refuses is filtered out by PostgreSQL itself.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, count, islice
from random import Random
from uuid import UUID

from schema.rows.tables import Type

type Types = Mapping[int, Type]

_WORDS = (
    "milk",
    "Überraschung",
    "naïve",
    "東京",
    "حليب",
    "x",
    "O'Hara",
    "100%",
    "a_b",
    "-- ",
    "😀",
)

TEXTS = (
    "a",
    "Ab c",
    " padded ",
    "e\u0301 \U0001d4b3 \u202eabc",
    "tab\tline\r\nback\\slash \"double\" 'single' {brace} $1 :name %s",
    "NULL",
    "",
    "A",
    "abc",
    "0",
    "12345",
    "DE",
    "EUR",
    "en-GB",
    "#a1b2c3",
    "a-b",
    "someone@example.invalid",
    "https://example.invalid/a?b=c#d",
    "+49 30 1234567",
    "2026-01-31",
    "12:34",
    "Europe/Berlin",
    "192.0.2.1",
    "{}",
)
"""Awkward texts, and short ones in the shapes that a CHECK often asks for."""

_JSON = ("{}", "[]", "null", '{"a": {"ü\\"": [1, 2.50, true, null]}}', '"text"', "0")

_FIXED: dict[str, tuple[str, ...]] = {
    "bool": ("true", "false"),
    "date": ("0001-01-01", "1970-01-01", "2000-02-29", "2026-11-26", "9999-12-31"),
    "time": ("00:00:00", "23:59:59.999999", "12:30:00"),
    "timetz": ("00:00:00+00", "23:59:59.999999+14", "12:30:00-12"),
    "interval": ("0", "1 day", "-1 month", "100 years", "00:00:00.000001"),
    "json": _JSON,
    "jsonb": _JSON,
    "bytea": ("\\x", "\\x00ff0a5c27"),
    "float4": ("0", "-1.5", "0.1", "1e30"),
    "float8": ("0", "-1.5", "0.1", "1e300"),
    "inet": ("192.0.2.1", "2001:db8::1/32", "0.0.0.0/0"),
    "cidr": ("192.0.2.0/24", "2001:db8::/32"),
    "macaddr": ("08:00:2b:01:02:03",),
    "macaddr8": ("08:00:2b:01:02:03:04:05",),
    "tsvector": ("'cat':1 'fat':2", ""),
    "tsquery": ("'fat' & 'rat'",),
    "point": ("(0,0)", "(-1.5,1e10)"),
    "line": ("{1,-1,0}",),
    "lseg": ("[(0,0),(1,1)]",),
    "box": ("(1,1),(0,0)",),
    "path": ("[(0,0),(1,1)]",),
    "polygon": ("((0,0),(1,1),(1,0))",),
    "circle": ("<(0,0),1>",),
    "xml": ("<a/>", "text"),
    "jsonpath": ("$",),
    "pg_lsn": ("0/0", "16/B374D848"),
    "oid": ("0", "1"),
    "char": ("a", "b"),
    "name": ("a", "Name"),
    "money": ("0", "-1.50", "1000"),
}
_RANDOM: dict[str, Callable[[Random, int], str]] = {
    "float4": lambda rng, _: repr(rng.uniform(-1000, 1000)),
    "float8": lambda rng, _: repr(rng.uniform(-1000, 1000)),
    "uuid": lambda rng, _: str(UUID(int=rng.getrandbits(128), version=4)),
    "bytea": lambda rng, _: f"\\x{rng.randbytes(8).hex()}",
    "bit": lambda rng, size: "".join(rng.choice("01") for _ in range(size)),
    "varbit": lambda rng, size: "".join(rng.choice("01") for _ in range(size)),
    "date": lambda rng, _: (
        f"{rng.randint(1990, 2040)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    ),
    "json": lambda rng, _: f'{{"n": {rng.randint(0, 10**9)}}}',
    "jsonb": lambda rng, _: f'{{"n": {rng.randint(0, 10**9)}}}',
}
"""Types whose values never run out; the number is the type's length."""

_INTEGERS = {"int2": 2**15, "int4": 2**31, "int8": 2**63}
_TEXT_TYPES = frozenset({"text", "varchar", "bpchar", "citext", "name"})

_STRING = re.compile(r"'((?:[^']|'')*)'")
_NUMBER = re.compile(r"(?<![\w.'])-?\d+(?:\.\d+)?(?![\w.])")
_LONGEST = 100_000
"""The longest text that is made to meet a length, in characters."""


def candidates(
    types: Types, oid: int, modifier: int, conditions: str, rng: Random
) -> Iterator[str]:
    """Yield candidates for a type, boundaries first; the same for the same generator.

    `conditions` is the text of the CHECKs: its strings and numbers, and what lies beside them, are
    candidates too. The iterator is endless unless the type has few values; it is empty for a type
    that is not known.
    """
    kind = types[oid]
    match kind.kind:
        case "d":
            inner = "\n".join((conditions, *kind.checks))
            size = modifier if modifier >= 0 else kind.modifier
            return candidates(types, kind.parts[0], size, inner, rng)
        case "e":
            return iter(kind.labels)
        case "array":
            return _arrays(types, kind.parts[0], modifier, conditions, rng)
        case "r" | "m":
            ranges = _ranges(types, kind.parts[0], rng)
            return ranges if kind.kind == "r" else (f"{{{one}}}" for one in ranges)
        case "c":
            return _composites(types, kind.parts, rng)
    return _scalars(kind.name, modifier, conditions, rng)


def _scalars(name: str, modifier: int, conditions: str, rng: Random) -> Iterator[str]:
    if name in _TEXT_TYPES:
        return _texts(name, modifier, conditions, rng)
    if name in _INTEGERS:
        return _integers(_INTEGERS[name], conditions, rng)
    if name == "numeric":
        return _numerics(modifier, conditions, rng)
    if name in {"timestamp", "timestamptz"}:
        return _times("+00" if name == "timestamptz" else "", conditions, rng)
    if name in _RANDOM:
        fixed = (*_strings(conditions), *_near(conditions), *_FIXED.get(name, ()))
        if name == "bytea":
            lengths = [int(one) for one in _numbers(conditions) if 0 <= one <= _LONGEST]
            fixed = (*(f"\\x{'5c' * length}" for length in lengths), *_FIXED[name])
        return chain(fixed, (_RANDOM[name](rng, max(modifier, 1)) for _ in count()))
    return chain(_strings(conditions), _FIXED.get(name, ()))


def _near(conditions: str) -> Iterator[str]:
    """Yield the numbers in the conditions, and their neighbours."""
    return (str(number + d) for number in _numbers(conditions) for d in (0, 1, -1))


def _texts(name: str, modifier: int, conditions: str, rng: Random) -> Iterator[str]:
    """Yield texts: those in the conditions, of the lengths in them, awkward ones, words."""
    longest = modifier - 4 if modifier > 0 else (63 if name == "name" else _LONGEST)
    lengths = sorted({int(n) + d for n in _numbers(conditions) for d in (0, 1, -1) if n == int(n)})
    sized = [
        character * length
        for length in (*lengths, *([longest] if modifier > 0 else []))
        if 0 < length <= min(longest, _LONGEST)
        for character in ("x", "é", "5")
    ]
    fixed = [
        *_strings(conditions),
        *(found.replace("%", "x").replace("_", "a") for found in _strings(conditions)),
        *sized,
        *TEXTS,
    ]
    lower = [one.lower() for one in fixed]
    upper = [one.upper() for one in fixed]
    fit = dict.fromkeys(one for one in (*fixed, *lower, *upper) if len(one) <= longest)

    def words() -> Iterator[str]:
        while True:
            digits = f"{rng.getrandbits(40):010x}"
            word = f"{rng.choice(_WORDS)} {digits}"
            yield from (digits[-longest:], word if len(word) <= longest else digits[-longest:])

    return chain(fit, words())


def _integers(limit: int, conditions: str, rng: Random) -> Iterator[str]:
    near = [int(found) + d for found in _numbers(conditions) for d in (0, 1, -1)]
    fixed = (0, 1, -1, limit - 1, -limit, *(n for n in near if -limit <= n < limit))
    small = min(limit - 1, 10**6)
    return map(str, chain(dict.fromkeys(fixed), (rng.randint(0, small) for _ in count())))


def _numerics(modifier: int, conditions: str, rng: Random) -> Iterator[str]:
    """Yield numbers of the precision and scale in the type's modifier."""
    # numeric.c: the precision is in the upper half, the scale in the 11 lowest bits.
    precision, scale = 20, 2
    if modifier >= 4:
        precision, scale = (modifier - 4) >> 16 & 0xFFFF, ((modifier - 4) & 0x7FF ^ 1024) - 1024
    digits = "9" * precision
    most = f"{digits[: precision - scale] or '0'}.{digits[:scale]}" if scale > 0 else digits
    step = 10.0**-scale
    near = [found + d for found in _numbers(conditions) for d in (0.0, 1.0, -1.0, step, -step)]
    whole = max(min(precision - scale, 6), 0)
    fixed = ("0", "1", most, f"-{most}", *(f"{n:.{max(scale, 0)}f}" for n in near))
    made = (f"{rng.uniform(0, 10**whole * 0.99):.{max(scale, 0)}f}" for _ in count())
    return chain(dict.fromkeys(fixed), made)


def _times(zone: str, conditions: str, rng: Random) -> Iterator[str]:
    fixed = (
        "2026-11-26 12:34:56.789012",
        "1970-01-01 00:00:00",
        "0001-01-01 00:00:00",
        "2000-02-29 23:59:59.999999",
        "9999-12-31 23:59:59",
    )
    made = (
        f"{rng.randint(1990, 2040)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
        f" {rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}"
        for _ in count()
    )
    return chain(_strings(conditions), (f"{one}{zone}" for one in chain(fixed, made)))


def _arrays(
    types: Types, element: int, modifier: int, conditions: str, rng: Random
) -> Iterator[str]:
    few = list(islice(candidates(types, element, modifier, conditions, rng), 40))
    if not few:
        return iter(("{}",))
    singles = (f"{{{_quoted(one)}}}" for one in few)
    pairs = (f"{{{_quoted(rng.choice(few))},{_quoted(rng.choice(few))}}}" for _ in count())
    return chain((f"{{{_quoted(few[0])}}}", "{}", "{NULL}"), singles, pairs)


def _ranges(types: Types, subtype: int, rng: Random) -> Iterator[str]:
    few = list(islice(candidates(types, subtype, -1, "", rng), 40))
    singles = (f"[{_quoted(one)},{_quoted(one)}]" for one in few)
    return chain(singles, ("empty", "(,)"), (f"[{_quoted(one)},)" for one in few))


def _composites(types: Types, parts: tuple[int, ...], rng: Random) -> Iterator[str]:
    fields: list[Callable[[], str | None]] = []
    for part in parts:
        pool = candidates(types, part, -1, "", rng)
        fields.append(lambda pool=pool: next(pool, None))  # type: ignore[misc]  # a default binds it
    while True:
        values = [one() for one in fields]
        yield f"({','.join('' if value is None else _quoted(value) for value in values)})"
        if all(value is None for value in values):
            return


def _quoted(value: str) -> str:
    """Quote a value inside an array, a range or a composite value."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _strings(conditions: str) -> list[str]:
    return [found.replace("''", "'") for found in _STRING.findall(conditions)]


def _numbers(conditions: str) -> list[float]:
    bare = _STRING.sub("", conditions)
    found = {float(one) for one in _NUMBER.findall(bare)}
    # PostgreSQL prints a negative number as '-1'::integer.
    found |= {float(one) for one in _strings(conditions) if _NUMBER.fullmatch(one)}
    return sorted(found)
