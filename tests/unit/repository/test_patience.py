"""A test waits longer on a busy machine than on a quiet one: its limits are multiplied by `PATIENCE`, and no measured time has
an upper bound.
"""

import ast
from collections.abc import Collection, Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from tests.support.eventually import PATIENCE

TESTS = Path(__file__).parents[2]
_FOLDERS = ("unit", "contract", "integration", "e2e", "faults", "support", "proxy")
#: A shorter limit, seconds, is not there for the machine: the test says that nothing is waited for, or that something is.
_SHORT_S = 1
#: A limit from here on, seconds, is for a fault that waits for ever: no machine is that slow.
_FAR_S = 600
#: What a limit may be within, because it is to be reached.
_REACHED = ("pytest.raises(TimeoutError", "suppress(TimeoutError")
#: The place of the limit in a call of a function, and of a method.
_LIMIT_AT = {"asyncio.wait_for": 1, "asyncio.timeout": 0}
_METHODS = {"wait": 0, "join": 0, "result": 0, "communicate": 1, "flush": 0}
#: Calls whose keyword `timeout` is no limit for a machine: it is reached, or nothing is waited for.
_REACHED_CALLS = ("asyncio.wait",)
_WAITING = {
    "wait",
    "join",
    "get",
    "communicate",
    "run",
    "result",
    "acquire",
    "Client",
    "AsyncClient",
    "list_topics",
    "delete_topics",
    "get_watermark_offsets",
}
#: Clocks of real time; the processor time of a thread or a process is none.
_CLOCKS = ("time.monotonic()", "time.perf_counter()", "time.monotonic_ns()", "loop.time()", "get_running_loop().time()")
_ELAPSED = (".elapsed.total_seconds()", ".took_s")

_USE_WITHIN = "use tests/support/eventually.py: within(seconds), or seconds * PATIENCE"
_COMPARE_EVENTS = """a slow machine exceeds every bound of a measured time. Compare events and their order instead (the answer is there,
and what it must not wait for has not ended); or a time with another whole time of the same run; or time.process_time(); or
let the fault wait for an hour, and use within(seconds)"""


def _is_plain(limit: ast.expr) -> bool:
    return isinstance(limit, ast.Constant) and isinstance(limit.value, int | float) and _SHORT_S <= limit.value < _FAR_S


def _limits_of(call: ast.Call) -> Iterator[ast.expr]:
    """Yield the limits in a call."""
    name = ast.unparse(call.func)
    at = _LIMIT_AT.get(name, 9)
    if isinstance(call.func, ast.Attribute) and name not in (*_LIMIT_AT, *_REACHED_CALLS):
        at = _METHODS.get(call.func.attr, 9)
        if call.func.attr in _WAITING:
            yield from (word.value for word in call.keywords if word.arg == "timeout")
    if at < len(call.args):
        yield call.args[at]


def _limits(source: str) -> Iterator[int]:
    """Yield the lines of limits that are plain numbers."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and any(map(_is_plain, _limits_of(node))):
            before = "\n".join(lines[max(0, node.lineno - 3) : node.lineno])
            if not any(words in before for words in _REACHED):
                yield node.lineno


def _is_elapsed(value: ast.expr, names: Collection[str]) -> bool:
    """Return whether a time is in the value that passed on a real clock; `names` of variables and functions have such values."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Sub) and ast.unparse(value.left).endswith(_CLOCKS):
        return True
    if isinstance(value, ast.Name | ast.Attribute | ast.Call) and (
        ast.unparse(value).endswith(_ELAPSED) or ast.unparse(value) in names
    ):
        return True
    parts = [part for part in ast.iter_child_nodes(value) if isinstance(part, ast.expr)]
    return not isinstance(value, ast.Compare | ast.Lambda) and any(_is_elapsed(part, names) for part in parts)


def _is_fraction(value: ast.expr) -> bool:
    """Return whether a measured time is only a bound by a part of it: a slow machine is not slow all the time."""
    return any(isinstance(part, ast.BinOp) and isinstance(part.op, ast.Div | ast.FloorDiv) for part in ast.walk(value))


def _elapsed_names(tree: ast.AST) -> set[str]:
    """Return the variables that get a time that passed, directly or from each other, and the functions that return one."""
    names, before = set[str](), -1
    while before < len(names):
        before = len(names)
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
                if _is_elapsed(node.value, names):
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    names |= {ast.unparse(one) for one in targets if isinstance(one, ast.Name | ast.Attribute)}
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                returned = (one.value for one in ast.walk(node) if isinstance(one, ast.Return))
                if any(value is not None and _is_elapsed(value, names) for value in returned):
                    names.add(node.name)
            elif isinstance(node, ast.Call) and isinstance(kept := node.func, ast.Attribute) and kept.attr == "append":
                names |= {ast.unparse(kept.value) for value in node.args if _is_elapsed(value, names)}
    return names


def _bounds(source: str) -> Iterator[int]:
    """Yield the lines of upper bounds of a time that passed, unless the bound is a time that was measured as well."""
    tree = ast.parse(source)
    names = _elapsed_names(tree)
    asserted = {part for node in ast.walk(tree) if isinstance(node, ast.Assert | ast.Return) for part in ast.walk(node)}
    for node in asserted:
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for (low, high), how in zip(pairwise(sides), node.ops, strict=True):
                if isinstance(how, ast.Gt | ast.GtE):
                    low, high = high, low  # noqa: PLW2901  # the same comparison from right to left
                elif not isinstance(how, ast.Lt | ast.LtE):
                    continue
                if _is_elapsed(low, names) and (not _is_elapsed(high, names) or _is_fraction(high)):
                    yield node.lineno


def _sources() -> dict[str, str]:
    files = [path for folder in _FOLDERS for path in (TESTS / folder).rglob("*.py") if path != Path(__file__)]
    assert len(files) > 100
    texts = {str(path.relative_to(TESTS)): path.read_text("utf-8") for path in files}
    return {name: text for name, text in texts.items() if "virtual_time" not in text}


def test_a_client_that_names_no_limit_is_patient_too() -> None:
    with httpx.Client() as http:
        assert http.timeout == httpx.Timeout(5 * PATIENCE)


def test_no_limit_is_a_plain_number_of_seconds() -> None:
    plain = [f"{name}:{line}" for name, text in _sources().items() for line in _limits(text)]
    assert not plain, _USE_WITHIN


def test_no_time_that_passed_has_an_upper_bound() -> None:
    bounded = [f"{name}:{line}" for name, text in _sources().items() for line in _bounds(text)]
    assert not bounded, _COMPARE_EVENTS


@pytest.mark.parametrize(
    "lines",
    [
        "assert time.monotonic() - begun < 5",
        "assert 5 * PATIENCE > time.perf_counter() - begun",
        "took = time.monotonic() - begun\nassert (code, took < LIMIT_S) == (0, True)",
        "longest = max(longest, time.monotonic() - begun)\nassert 0.1 < longest <= 2",
        "waits.append(time.monotonic() - begun)\nassert max(waits) < 1",
        "def f():\n  return time.monotonic() - begun\nassert f() < 1",
        "assert answer.elapsed.total_seconds() < 0.9",
        "assert death.took_s < 10",
        "took.append(time.monotonic() - begun)\nassert min(took) < 0.8",
        "took = time.monotonic() - begun\nassert took < (time.monotonic() - earlier) / 4",
    ],
)
def test_an_upper_bound_of_a_time_that_passed_is_found(lines: str) -> None:
    assert len(list(_bounds(lines))) == 1


@pytest.mark.parametrize(
    "lines",
    [
        "assert time.monotonic() - begun >= 0.5",
        "assert time.process_time() - begun < 1",
        "assert time.monotonic() < deadline",
        "took = time.monotonic() - begun\nassert took <= time.monotonic() - earlier",
    ],
)
def test_another_comparison_is_not(lines: str) -> None:
    assert not list(_bounds(lines))


@pytest.mark.parametrize(
    "line",
    [
        "await asyncio.wait_for(task, 5)",
        "async with asyncio.timeout(10):\n  pass",
        "process.wait(10)",
        "thread.join(5)",
        "queue.get(timeout=5)",
        "process.communicate(timeout=30)",
        "subprocess.run(command, timeout=60)",
        "httpx.AsyncClient(timeout=5)",
        "future.result(30)",
        "producer.flush(10)",
    ],
)
def test_a_plain_limit_is_found(line: str) -> None:
    assert list(_limits(f"async def f():\n {line}"))


@pytest.mark.parametrize(
    "line",
    [
        "await asyncio.wait_for(task, 5 * PATIENCE)",
        "await asyncio.wait_for(task, 0.1)",
        "process.wait(10 * PATIENCE)",
        "await asyncio.wait({task}, timeout=2)",
        "', '.join(words)",
        "async with within(5):\n  pass",
        "with pytest.raises(TimeoutError):\n  await asyncio.wait_for(task, 1)",
    ],
)
def test_another_limit_is_not(line: str) -> None:
    assert not list(_limits(f"async def f():\n {line}"))
