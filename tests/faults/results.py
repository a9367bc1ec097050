"""The last run's figures of the fault matrix: `pytest --fault-results` keeps them in `results.json`.

A test reports its figures through the fixture of that name. A run of some tests replaces their figures and keeps the
others.
"""

import json
import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

RESULTS = Path(__file__).parent / "results.json"
_WORST = ("passed", "skipped", "failed")

#: The types of a figure: text is shown unchanged, a float with one decimal.
Figure = int | float | str


def case_seconds() -> dict[str, float]:
    """Return how long one case of each test of the matrix took, by its path below tests/ and its name."""
    known = json.loads(RESULTS.read_text(encoding="utf-8"))
    return {name: result["seconds"] / result["cases"] for name, result in known.items()}


def pytest_addoption(parser: pytest.Parser) -> None:
    faults = parser.getgroup("fault matrix")
    faults.addoption(
        "--fault-results", action="store_true", help=f"keep the figures of the matrix's tests in {RESULTS.name}"
    )
    faults.addoption("--long-faults", action="store_true", help="faults that last minutes in life last minutes here")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--fault-results") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(RESULTS))


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Report a counted or measured value: `figures(calls=300, drained_s=4.2)`. A name that ends in `_s` is in seconds."""

    def tell(**values: Figure) -> None:
        for name, value in values.items():
            record_property(name, value)

    return tell


@pytest.fixture
def long_faults(pytestconfig: pytest.Config) -> bool:
    """Return whether faults take their full time; otherwise a run must end within minutes."""
    return bool(pytestconfig.getoption("--long-faults"))


class Recorder:
    """Collects the figures of the matrix's tests, all cases of one test together, and writes them at the end."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._told: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.removeprefix("tests/").partition("[")[0]
        result = self._told.setdefault(name, {"outcome": "passed", "cases": 0, "seconds": 0.0, "figures": {}})
        result["seconds"] += report.duration
        result["outcome"] = max(result["outcome"], report.outcome, key=_WORST.index)
        if report.when == "teardown":
            result["cases"] += 1
            result["figures"] |= dict(report.user_properties)

    def pytest_sessionfinish(self) -> None:
        from tests.faults.matrix import ROWS

        wanted = {test for row in ROWS for test in row.tests}
        known = json.loads(self._file.read_text()) if self._file.exists() else {}
        now = {"day": datetime.now(UTC).date().isoformat(), "machine": _machine()}
        new = {name: {**result, "seconds": round(result["seconds"], 1), **now} for name, result in self._told.items()}
        kept = {name: result for name, result in {**known, **new}.items() if name in wanted}
        self._file.write_text(json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _machine() -> str:
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {sys.platform}"
