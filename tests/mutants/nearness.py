"""Which unit tests can notice a change of a module, the likeliest first: computed from imports."""

import ast
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

from tests.mutants.rules import ROOT

_SUPPORT = "tests/support"
_READ = ("schemas", "streams", "connectors", _SUPPORT, "tests/unit")


def near(file: str) -> list[str]:
    """The tests that import the module themselves or are named after it; if there are none, the nearest."""
    away = _away(file)
    close = [test for test in away if away[test] == 1 or _named_after(test, file)]
    return close or [test for test in away if away[test] == min(away.values())]


def rounds(file: str) -> list[list[str]]:
    """All unit tests that import the module, directly or indirectly: the near ones, those one step further, the others."""
    away, close = _away(file), near(file)
    further = [test for test in away if away[test] == 2 and test not in close]
    others = [test for test in away if test not in close and test not in further]
    return [some for some in (close, further, others) if some]


def _is_unit_test(file: str) -> bool:
    return file.startswith("tests/unit/") and Path(file).name.startswith("test_")


def _named_after(test: str, file: str) -> bool:
    return Path(test).stem.removeprefix("test_").startswith(Path(file).stem)


@cache
def _away(file: str) -> dict[str, int]:
    """The unit tests that import the module, and in how many steps, those within the tests' own support not counted; the
    nearest first."""
    steps, found, number = {file}, {file: 0}, 0
    while steps:
        number += 1
        steps = _importing(steps, found)
        while more := _importing({one for one in steps if one.startswith(_SUPPORT)}, {*found, *steps}):
            steps |= more
        found.update(dict.fromkeys(steps, number))
    tests = {one: steps for one, steps in found.items() if _is_unit_test(one)}
    return dict(sorted(tests.items(), key=lambda item: (not _named_after(item[0], file), item[1], item[0])))


def _importing(files: set[str], known: Collection[str]) -> set[str]:
    return {one for one, imported in _imports().items() if one not in known and imported & files}


@cache
def _imports() -> dict[str, frozenset[str]]:
    """The imports of each file of the repository."""
    paths = [one for top in _READ for one in (ROOT / top).rglob("*.py")]
    there = {str(one.relative_to(ROOT)): one for one in paths}
    return {
        file: frozenset(module for name in _names(path) for module in _files(name) if module in there)
        for file, path in there.items()
    }


def _names(path: Path) -> Iterator[str]:
    """Every dotted name that could be a module it imports, lazily or at once."""
    if path.parent.name == "parsers":
        yield f"connectors.cli.{path.stem}"  # a command's work, which commands/parsers/deferred.py imports
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield "/".join(parts) + ".py"
    yield from ("/".join(parts[: number + 1]) + "/__init__.py" for number in range(len(parts)))
