"""CONTRIBUTING.md names what is there: files, names in them, tests, make targets, modules, commands and fields."""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from connectors.config.settings import VARIABLES

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
#: What stands in backticks, and how a part of it shows what it is.
QUOTED = re.findall(r"`([^`\n]+)`", TEXT)
PATH = re.compile(r"(?:[\w.*-]+/)+[\w.*-]*|[\w.*-]+\.(?:py|md|toml|yml|txt)")
NAMED = re.compile(r"((?:\w+/)+\w+\.py)::(\w+)")
TARGET = re.compile(r"\bmake ([a-z-]+)")
MODULE = re.compile(r"\bpython -m ([\w.]+)")
VARIABLE = re.compile(r"[A-Z]+(?:_[A-Z]+)+")
#: Made by `make venv`, or the reader's choice.
MADE = (".venv/",)
GUESSED = {"NAME": "*", "NNNN_name": "[0-9]*"}


def told(pattern: re.Pattern[str]) -> list[str]:
    """What the pattern finds in all that is quoted, once each."""
    return sorted({found for quoted in QUOTED for found in pattern.findall(quoted)})


def paths() -> list[str]:
    """Files and folders; a name that the reader fills in becomes a star."""
    whole = {path for path in told(PATH) if not path.startswith(MADE)}
    for placeholder, star in GUESSED.items():
        whole = {path.replace(placeholder, star) for path in whole}
    return sorted(whole)


@cache
def defined(file: str) -> frozenset[str]:
    """Classes, functions and constants of a module, tests among them."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(found)


def test_there_is_much_to_compare() -> None:
    assert len(paths()) > 60
    assert len(told(NAMED)) > 30
    assert len(told(TARGET)) > 8
    assert len(told(MODULE)) > 2


@pytest.mark.parametrize("path", paths())
def test_every_file_and_folder_is_there(path: str) -> None:
    assert list(ROOT.glob(path.rstrip("/"))), path


@pytest.mark.parametrize(("file", "name"), told(NAMED))
def test_every_name_is_defined_in_its_file(file: str, name: str) -> None:
    assert name in defined(file)


@pytest.mark.parametrize("target", told(TARGET))
def test_every_target_is_one_of_make(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE)


@pytest.mark.parametrize("module", told(MODULE))
def test_every_module_that_is_run_can_be_run(module: str) -> None:
    found = find_spec(module)
    assert found is not None and found.origin is not None
    if found.submodule_search_locations:  # a package is run by its __main__
        assert find_spec(module + ".__main__") is not None
        return
    assert '__name__ == "__main__"' in Path(found.origin).read_text(encoding="utf-8")


def test_every_option_of_a_tool_is_one_that_it_has() -> None:
    """`--fault-results` of pytest, `--named` of the mutants, `--from` of an upgrade and of a recording, `--record` of contracts,
    `--write` of a page."""
    readers = (
        "tests/faults/results.py",
        "tests/mutants/run.py",
        "tests/faults/rolling_upgrade.py",
        "tests/support/recorded_version/__main__.py",
        "tests/contract/compatibility/__main__.py",
        "tests/litellm_matrix/__main__.py",
    )
    options = "".join((ROOT / file).read_text(encoding="utf-8") for file in readers)
    wanted = set(told(re.compile(r"--[a-z-]+"))) - {"--json"}
    assert wanted == {"--fault-results", "--named", "--from", "--name", "--record", "--write"}
    assert [one for one in wanted if f'"{one}"' not in options] == []


def test_every_variable_is_a_setting_or_a_name_in_the_code() -> None:
    names = {name for _, name in told(NAMED)}
    assert [one for one in told(VARIABLE) if one not in VARIABLES.keys() | names] == []


def test_it_is_read_in_one_sitting() -> None:
    assert len(TEXT.splitlines()) <= 160
