"""The fault matrix is complete: every required fault has its row, every row its test, and the page is generated from
them.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.matrix import CHAPTERS, PAGE, ROWS, written
from tests.faults.matrix_rows.meaning import RULES
from tests.faults.matrix_rows.row import LOST, MONEY, TWICE, Check, Row
from tests.faults.page import page
from tests.faults.results import Recorder

ROOT = Path(__file__).parents[3]
#: A row may be missing from this list; nothing of this list may be missing from the rows.
WANTED = {
    1: "kill -9 of meter, sink and retry",
    2: "kill -9 of the ingress",
    3: "frozen and continues",
    4: "rolling restart",
    5: "third worker joins",
    6: "mapped while their calls arrive",
    7: "each step of a post",
    8: "killed while an event waits",
    9: "a batch that Faust fetched and dropped",
    10: "sink, retry and projector",
    12: "a rebalance storm: five workers join and leave",
    13: "a frozen retry worker",
    14: "clock skew: meters",
    15: "clock skew of sink and retry",
    16: "two deployments by mistake",
    17: "two deployments by mistake",
    18: "two deployments by mistake",
    21: "kill -9 of the broker",
    23: "broker and ingress are killed",
    24: "the spool's disk is full",
    27: "a dead letter that the broker refuses",
    28: "truncated",
    29: "deleted and created again",
    30: "partitions were added",
    33: "the broker is down for 60 s under load, and the ingress is killed",
    34: "a frozen broker",
    35: "a network to Kafka that passes nothing",
    36: "connections to Kafka that are reset",
    41: "429",
    42: "500",
    43: "closed before Lago stores",
    44: "stores the events, and its answer is lost",
    45: "ClickHouse with deduplication",
    46: "ClickHouse without deduplication",
    48: "refuses the key, which is then corrected",
    51: "a batch that always answers 500 while others pass",
    52: "one id twice in a batch",
    56: "down for 5 minutes",
    57: "a network to Lago that passes nothing",
    59: "one bad event and one repeated event in each batch of 100",
    63: "an oversized record",
    70: "poison records",
    71: "a newer schema",
    87: "clock skew of the ingress",
    81: "Postgres is killed",
    83: "a frozen one continues",
    101: "gzip of 1 GiB of blanks",
    102: "send nothing",
    103: "guessed tokens",
    104: "a damaged element with millions of parts",
    106: "damaged records in every topic",
    107: "bytes that no sender",
    109: "a client that names another customer",
    110: "tries to map or to find customers of others",
    111: "makes a bill smaller",
    112: "markup, escape sequences",
    113: "an audit line that is changed",
    114: "SIGTERM at any moment",
    121: "continues where an earlier version stopped",
}


#: Collects, and says of each test which markers it has.
_LIST = """
import sys, pytest
class List:
    def pytest_collection_finish(self, session):
        for item in session.items:
            print(item.nodeid, " ".join(marker.name for marker in item.iter_markers()), sep="\\t")
pytest.main(sys.argv[1:], plugins=[List()])
"""


#: The tests that rows name.
_NAMED = {test for row in (*ROWS, *RULES) for test in row.tests}


@pytest.fixture(scope="module")
def collected(collected_items: tuple[pytest.Item, ...]) -> dict[str, frozenset[str]]:
    """Tests that pytest collects, with those that rows name: paths below tests/ without parameters, and their markers."""
    here = [(item.nodeid, frozenset(marker.name for marker in item.iter_markers())) for item in collected_items]
    found = {_test_of(name): markers for name, markers in here}
    return found if found.keys() >= _NAMED else _found_by_another()


def _found_by_another() -> dict[str, frozenset[str]]:
    """For a run of some files only: starts a pytest that collects the files of the matrix."""
    files = sorted({"tests/" + test.partition("::")[0] for test in _NAMED})
    command = [sys.executable, "-c", _LIST, "--collect-only", "-qq", "-p", "no:cacheprovider", *files]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    found = (line.split("\t") for line in said.splitlines() if "::" in line and "\t" in line)
    return {_test_of(name): frozenset(markers.split()) for name, markers in found}


def _test_of(nodeid: str) -> str:
    return nodeid.partition("[")[0].removeprefix("tests/")


def test_there_are_at_least_thirty_rows_with_unique_numbers() -> None:
    assert len(ROWS) >= 30
    assert len({row.number for row in ROWS}) == len(ROWS)
    assert len({row.fault for row in ROWS}) == len(ROWS)


def test_few_faults_are_simulated_and_these_rows_say_why() -> None:
    """Each row says how real its fault is; without that it proves less than it seems to."""
    simulated = [row for row in ROWS if row.simulated]
    assert len(simulated) <= 7
    beside = ("unit/", "fuzz/", "contract/test_org_privileged_actions.py")
    assert [row.number for row in ROWS if any(test.startswith(beside) for test in row.tests)] == [
        row.number for row in simulated
    ]


def test_every_test_that_a_row_names_is_collected(collected: dict[str, frozenset[str]]) -> None:
    assert _NAMED - collected.keys() == set()


def test_a_fault_that_is_not_simulated_runs_on_real_kafka_or_real_postgres(
    collected: dict[str, frozenset[str]],
) -> None:
    """Every test that starts a server has a marker, so that it cannot be left out by accident."""
    real = {test for test, markers in collected.items() if markers & {"kafka", "faults"}}
    postgres = {test for row in CHAPTERS["Postgres"] for test in row.tests}
    postgres |= {test for row in CHAPTERS["Input"] for test in row.tests if _uses_postgres(test)}
    assert {row.tests[0] for row in ROWS if not row.simulated} - real - postgres == set()


def _uses_postgres(test: str) -> bool:
    text = (ROOT / "tests" / test.partition("::")[0]).read_text()
    return "postgres_url" in text or "(url: str" in text


@pytest.mark.parametrize(("number", "words"), WANTED.items(), ids=str)
def test_every_required_fault_has_its_row(number: int, words: str) -> None:
    (row,) = (row for row in ROWS if row.number == number)
    assert words in row.fault


def test_every_row_has_its_fault_its_observation_and_its_expected_result() -> None:
    for row in ROWS:
        assert row.fault and row.injected and row.expected and row.checks and row.tests, row.number
        assert len(set(row.checks)) == len(row.checks), row.number
        assert "|" not in row.fault + row.injected + row.expected, row.number


def test_every_invariant_is_verified_by_several_rows() -> None:
    for check in Check:
        assert sum(1 for row in ROWS if check in row.checks) >= 5, check


def test_the_page_is_current_with_the_matrix_and_the_last_run() -> None:
    """`make reliability` writes it."""
    assert PAGE.read_text() == written()


def row(**changes: object) -> Row:
    fields: dict[str, object] = {"number": 1, "fault": "a fault", "injected": "so", "checks": (LOST, TWICE, MONEY)}
    return Row(**{**fields, "expected": "nothing", "tests": ("faults/test_x.py::test_x",), **changes})  # type: ignore[arg-type]


def test_a_page_shows_outcome_time_and_figures_of_each_row() -> None:
    result = {
        "outcome": "passed",
        "cases": 1,
        "seconds": 12.34,
        "day": "2026-11-21",
        "machine": "2 cores",
        "figures": {"calls": 18000, "drained_s": 4.25, "other": 1},
    }
    shown = page({"One": (row(shows=("calls", "drained_s")),)}, {"faults/test_x.py::test_x": result})
    assert "| passed, 12 s; calls 18,000; drained 4.2 s |" in shown
    assert "| not run |" in page({"One": (row(),)}, {})
    failed = {**result, "outcome": "failed", "cases": 3}
    shown = page({"One": (row(simulated="a day"),)}, {"faults/test_x.py::test_x": failed})
    assert "| *simulated: a day*; failed, 3 cases, 12 s;" in shown


def test_a_run_replaces_only_the_results_of_its_own_tests(tmp_path: Path) -> None:
    """A part of the matrix may be run alone; results of removed rows are deleted."""
    first, second = ROWS[0].tests[0], ROWS[-1].tests[0]
    file = tmp_path / "results.json"
    file.write_text(f'{{"{first}": {{"outcome": "passed", "seconds": 1.0}}, "gone": {{}}}}')
    recorder = Recorder(file)
    for case, outcome in (("[a]", "failed"), ("[b]", "passed")):
        for when in ("setup", "call", "teardown"):
            recorder.pytest_runtest_logreport(report(second + case, when, outcome if when == "call" else "passed"))
    recorder.pytest_sessionfinish()
    known = json.loads(file.read_text())
    assert known.keys() == {first, second}
    assert known[first] == {"outcome": "passed", "seconds": 1.0}
    assert {name: known[second][name] for name in ("outcome", "cases", "seconds", "figures")} == {
        "outcome": "failed",
        "cases": 2,
        "seconds": 3.0,
        "figures": {"calls": 7},
    }


def report(test: str, when: str, outcome: str) -> pytest.TestReport:
    return pytest.TestReport(
        "tests/" + test,
        ("", None, ""),
        {},
        outcome,  # type: ignore[arg-type]
        None,
        when,  # type: ignore[arg-type]
        duration=0.5,
        user_properties=[("calls", 7)],
    )
