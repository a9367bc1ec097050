"""A test waits longer on a busy machine than on a quiet one: its limits are multiplied by `PATIENCE`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
_FOLDERS = ("unit", "contract", "integration", "e2e", "faults")
#: A shorter limit, seconds, is not there for the machine: the test says that nothing is waited for, or that something is.
_SHORT_S = 1
#: What a limit may be within, because it is to be reached.
_REACHED = ("pytest.raises(TimeoutError", "suppress(TimeoutError")
#: The place of the limit in a call.
_LIMIT_AT = {"asyncio.wait_for": 1, "asyncio.timeout": 0}


def _limits(source: str) -> Iterator[int]:
    """Yield the lines of limits that are plain numbers."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and (at := _LIMIT_AT.get(ast.unparse(node.func), 9)) < len(node.args):
            limit = node.args[at]
            if isinstance(limit, ast.Constant) and isinstance(limit.value, int | float) and limit.value >= _SHORT_S:
                before = "\n".join(lines[max(0, node.lineno - 3) : node.lineno])
                if not any(words in before for words in _REACHED):
                    yield node.lineno


def test_no_limit_is_a_plain_number_of_seconds() -> None:
    files = [path for folder in _FOLDERS for path in (TESTS / folder).rglob("*.py")]
    texts = {path: path.read_text("utf-8") for path in files}
    plain = [
        f"{path.relative_to(TESTS)}:{line}"
        for path, text in texts.items()
        if "virtual_time" not in text and path != Path(__file__)
        for line in _limits(text)
    ]
    assert len(files) > 100
    assert not plain, "use tests/support/eventually.py: within(seconds), or seconds * PATIENCE"


@pytest.mark.parametrize("line", ["await asyncio.wait_for(task, 5)", "async with asyncio.timeout(10):\n  pass"])
def test_a_plain_limit_is_found(line: str) -> None:
    assert list(_limits(f"async def f():\n {line}"))


@pytest.mark.parametrize(
    "line",
    [
        "await asyncio.wait_for(task, 5 * PATIENCE)",
        "await asyncio.wait_for(task, 0.1)",
        "async with within(5):\n  pass",
        "with pytest.raises(TimeoutError):\n  await asyncio.wait_for(task, 1)",
    ],
)
def test_another_limit_is_not(line: str) -> None:
    assert not list(_limits(f"async def f():\n {line}"))
