"""CONTRIBUTING.md refers only to existing files, names, tests, make targets, modules, commands and fields."""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from connectors.config.settings import VARIABLES

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
#: Text in backticks, and how a part of it shows its kind.
QUOTED = re.findall(r"`([^`\n]+)`", TEXT)
PATH = re.compile(r"(?:[\w.*-]+/)+[\w.*-]*|[\w.*-]+\.(?:py|md|toml|yml|txt)")
NAMED = re.compile(r"((?:\w+/)+\w+\.py)::(\w+)")
TARGET = re.compile(r"\bmake ([a-z-]+)")
MODULE = re.compile(r"\bpython -m ([\w.]+)")
VARIABLE = re.compile(r"[A-Z]+(?:_[A-Z]+)+")
#: Made by `make venv`, or the reader's choice.
GENERATED = (".venv/",)
GUESSED = {"NAME": "*", "NNNN_name": "[0-9]*"}


def matches(pattern: re.Pattern[str]) -> list[str]:
    """What the pattern finds in all quoted text, once each."""
    return sorted({found for quoted in QUOTED for found in pattern.findall(quoted)})


def paths() -> list[str]:
    """Files and folders; a placeholder for a name becomes a star."""
    whole = {path for path in matches(PATH) if not path.startswith(GENERATED)}
    for placeholder, star in GUESSED.items():
        whole = {path.replace(placeholder, star) for path in whole}
    return sorted(whole)


@cache
def defined(file: str) -> frozenset[str]:
    """Classes, functions and constants of a module, tests included."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(found)


def test_the_page_has_enough_names_to_compare() -> None:
    assert len(paths()) > 60
    assert len(matches(NAMED)) > 30
    assert len(matches(TARGET)) > 8
    assert len(matches(MODULE)) > 2


@pytest.mark.parametrize("path", paths())
def test_every_file_and_folder_exists(path: str) -> None:
    assert list(ROOT.glob(path.rstrip("/"))), path


@pytest.mark.parametrize(("file", "name"), matches(NAMED))
def test_every_name_is_defined_in_its_file(file: str, name: str) -> None:
    assert name in defined(file)


@pytest.mark.parametrize("target", matches(TARGET))
def test_every_target_exists_in_the_makefile(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE)


@pytest.mark.parametrize("module", matches(MODULE))
def test_every_module_in_a_command_can_be_run(module: str) -> None:
    found = find_spec(module)
    assert found is not None and found.origin is not None
    if found.submodule_search_locations:  # a package is run by its __main__
        assert find_spec(module + ".__main__") is not None
        return
    assert '__name__ == "__main__"' in Path(found.origin).read_text(encoding="utf-8")


def test_every_option_in_a_command_exists() -> None:
    """`--fault-results` of pytest, `--named` of the mutants, `--from` of an upgrade and of a recording, `--record` of
    contracts, `--write` of a page.
    """
    readers = (
        "tests/faults/results.py",
        "tests/mutants/run.py",
        "tests/faults/rolling_upgrade.py",
        "tests/support/recorded_version/__main__.py",
        "tests/contract/compatibility/__main__.py",
        "tests/litellm_matrix/__main__.py",
    )
    options = "".join((ROOT / file).read_text(encoding="utf-8") for file in readers)
    wanted = set(matches(re.compile(r"--[a-z-]+"))) - {"--json"}
    assert wanted == {"--fault-results", "--named", "--from", "--name", "--record", "--write"}
    assert [one for one in wanted if f'"{one}"' not in options] == []


def test_every_variable_is_a_setting_or_a_name_in_the_code() -> None:
    names = {name for _, name in matches(NAMED)}
    assert [one for one in matches(VARIABLE) if one not in VARIABLES.keys() | names] == []


def test_the_page_is_short_enough_to_read_at_once() -> None:
    assert len(TEXT.splitlines()) <= 160
