"""Benchmark results: a ratio above 1 means that ours is better, medians count, and each file has one format."""

import asyncio
import json
from pathlib import Path

import pytest

from bench.contest import Measured
from bench.latency.timing import at_pace
from bench.latency.timing import row as times
from bench.report import CEILINGS, TARGETS, Row, rows_of, write
from tests.support.virtual_time import run_virtually, virtual_now

LATEST = Path(__file__).parents[3] / "bench" / "results" / "latest.json"
IDLE, LATENCY = LATEST.with_name("idle.json"), LATEST.with_name("latency.json")
SHAPE = {"name": str, "unit": str, "ours": (int, float), "peer": str, "peer_value": (int, float), "ratio": (int, float)}
PEERS = {"quix", "faust", "bare", "copy"}
#: The rows of each subject.
MEASURED_TIMES = {"webhook_to_lago": 1, "api_over_lago": 4, "own_tables": 1, "mapping_to_lago": 1}


def row(name: str = "meter_flat_wall", peer: str = "quix", ours: float = 10.0, theirs: float = 30.0) -> Row:
    return Row(name, "us/record", peer, [ours], [theirs])


def test_a_ratio_above_one_means_that_the_peer_costs_more() -> None:
    assert row(ours=10, theirs=30).ratio == 3
    assert row(ours=30, theirs=10).ratio == pytest.approx(1 / 3)


def test_the_median_of_the_repeats_is_used() -> None:
    measured = Row("n", "us/record", "quix", [1.0, 10.0, 100.0], [600.0, 20.0, 5.0])
    assert (measured.ours, measured.peer_value, measured.ratio) == (10.0, 20.0, 2.0)


def test_every_peer_is_compared_with_ours_in_wall_and_cpu_time_of_the_same_runs() -> None:
    found = {"bare": [Measured(2, 1)], "ours": [Measured(10, 8), Measured(12, 9)], "quix": [Measured(30, 24)]}
    rows = {(one.name, one.peer): (one.ours, one.peer_value) for one in rows_of("meter", "us/record", found)}
    assert rows == {
        ("meter_wall", "bare"): (11.0, 2),
        ("meter_cpu", "bare"): (8.5, 1),
        ("meter_wall", "quix"): (11.0, 30),
        ("meter_cpu", "quix"): (8.5, 24),
    }


@pytest.mark.parametrize(
    ("measured", "reached"),
    [
        (row(theirs=15.0), True),
        (row(theirs=14.9), False),
        (row("meter_flat_cpu", "faust", theirs=50.0), True),
        (row("meter_flat_cpu", "faust", theirs=49.0), False),
        (row("projector_wall", "copy", ours=100, theirs=34), True),
        (row("projector_wall", "copy", ours=100, theirs=33), False),
        (row("projector_wall", "copy", ours=101, theirs=50), False),
        (row("memory_per_id", "bare", ours=32.0), True),
        (row("memory_per_id", "bare", ours=32.1), False),
    ],
)
def test_a_target_is_reached_by_a_minimum_ratio_or_by_a_maximum_of_our_own_figure(measured: Row, reached: bool) -> None:
    asked = measured.target()
    assert asked is not None
    assert asked[1] is reached


def test_without_targets_none_is_missed() -> None:
    assert row("meter_slp_wall", "bare", ours=10, theirs=1).target() is None


def test_the_file_holds_only_the_rows_of_one_run(tmp_path: Path) -> None:
    path = tmp_path / "results" / "latest.json"
    write([row(), row(peer="faust")], path)
    write([row(ours=3.0, theirs=1.0)], path)
    assert json.loads(path.read_text()) == [
        {
            "name": "meter_flat_wall",
            "unit": "us/record",
            "ours": 3.0,
            "peer": "quix",
            "peer_value": 1.0,
            "ratio": 0.3333,
        }
    ]


def test_figures_of_one_comparison_may_be_added_to_those_of_others(tmp_path: Path) -> None:
    path = tmp_path / "latest.json"
    write([row(), row(peer="faust"), row("ingress")], path)
    write([row(ours=3.0)], path, add=True)
    result = [(one["name"], one["peer"], one["ours"]) for one in json.loads(path.read_text())]
    assert result == [("meter_flat_wall", "faust", 10.0), ("ingress", "quix", 10.0), ("meter_flat_wall", "quix", 3.0)]


def test_the_committed_results_have_this_format_and_every_target_has_its_row() -> None:
    result = json.loads(LATEST.read_text())
    for one in result:
        assert one.keys() == SHAPE.keys()
        assert all(isinstance(one[name], kind) for name, kind in SHAPE.items()), one
        assert one["peer"] in PEERS
        assert one["ratio"] == pytest.approx(one["peer_value"] / one["ours"], rel=0.01)
    pairs = [(one["name"], one["peer"]) for one in result]
    assert len(set(pairs)) == len(pairs)
    assert TARGETS.keys() <= set(pairs)
    assert CEILINGS.keys() <= {name for name, _ in pairs}


def test_the_measured_idle_installation_takes_less_than_four_percent_of_a_core_and_200_mib() -> None:
    *containers, total = json.loads(IDLE.read_text())
    assert [one["name"] for one in containers] == ["worker", "api", "ingress"]
    assert total["name"] == "all"
    for figure in ("cpu_percent", "wakeups_per_s", "pss_mib"):
        assert total[figure] == pytest.approx(sum(one[figure] for one in containers), abs=0.5)
    assert total["cpu_percent"] < 4
    assert total["pss_mib"] < 200


def test_the_percentiles_of_times_are_of_the_sorted_times_in_milliseconds() -> None:
    found = times([number / 1000 for number in range(199, -1, -1)], 95, request="invoices")
    assert found == {"request": "invoices", "calls": 200, "p50_ms": 100.0, "p95_ms": 190.0, "longest_ms": 199.0}


def test_work_starts_at_its_rate_whether_earlier_work_has_ended_or_not() -> None:
    """Work that waited for the work before it would take ten times as long."""

    async def slow(_: int) -> float:
        begun = virtual_now()
        await asyncio.sleep(10)
        return begun

    begun = run_virtually(at_pace(slow, rate=1000, count=3))
    assert begun == sorted(begun)
    assert begun[-1] < 10


def test_every_measured_time_has_its_number_of_calls_and_its_machine() -> None:
    result = json.loads(LATENCY.read_text())
    assert {name: len(rows) for name, rows in result.items()} == MEASURED_TIMES
    for one in (one for rows in result.values() for one in rows):
        assert {"cores", "python", "machine", "load", "per_second"} <= one.keys()
        assert one["calls"] >= 100
        high = one["p95_ms"] if "request" in one else one["p99_ms"]
        assert one["p50_ms"] <= high <= one["longest_ms"]
