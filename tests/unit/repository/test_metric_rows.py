"""docs/coverage.md has a row for each metric, and a test of the row reads the metric by its name."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from connectors.telemetry.metrics import Metrics
from tests.support.pages import whole_page

TESTS = Path(__file__).parents[2]
PAGE = whole_page("coverage.md")
SECTION = PAGE.split("\n## Metrics\n")[1].split("\n## ")[0]
ROWS = [line for line in SECTION.splitlines() if line.startswith("| `")]
#: What Prometheus' type puts behind the name that the code gives.
ENDINGS = {"counter": "_total", "info": "_info"}


def exported() -> set[str]:
    """The names that a scraper sees, without the suffixes of a histogram."""
    families = Metrics(CollectorRegistry(), "1.2.3").registry.collect()
    return {family.name + ENDINGS.get(family.type, "") for family in families}


def metrics_and_tests(row: str) -> tuple[list[str], list[tuple[str, str]]]:
    first, second = row.strip("| ").split(" | ")
    return re.findall(r"`([a-z_]+)`", first), re.findall(r"`([\w/]+\.py)::(\w+)`", second)


@cache
def functions(file: str) -> dict[str, ast.AST]:
    nodes = ast.walk(ast.parse((TESTS / file).read_text(encoding="utf-8")))
    return {node.name: node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def text_of(file: str, test: str) -> str:
    """The test and the functions of its file that it calls."""
    known = functions(file)
    called = {node.id for node in ast.walk(known[test]) if isinstance(node, ast.Name)} & known.keys()
    return "\n".join(ast.unparse(known[name]) for name in {test, *called})


def test_every_metric_has_exactly_one_row_and_every_row_a_metric() -> None:
    named = [name for row in ROWS for name in metrics_and_tests(row)[0]]
    assert sorted(named) == sorted(exported())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: metrics_and_tests(row)[0][0])
def test_each_metric_is_read_by_name_in_a_test_of_its_row(row: str) -> None:
    metrics, tests = metrics_and_tests(row)
    assert tests
    read = "\n".join(text_of(*test) for test in tests)
    for name in metrics:
        assert re.search(rf"\b(meterbridge_)?{name.removeprefix('meterbridge_')}\b|\b{name}(_count|_sum)\b", read), name
