"""Laws of the plan of faults: whatever the seed, a run proves what it says it proves."""

import pytest

from tests.faults.plan import FREEZES_S, SESSION_S, TRANSACTION_S, Kind, draw_plan, shortfalls


@pytest.mark.parametrize("seed", range(100))
def test_every_seed_gives_a_plan_with_at_least_three_faults_of_every_kind_that_fit_into_the_load(seed: int) -> None:
    assert shortfalls(draw_plan(seed)) == []


def test_the_seed_repeats_the_plan_and_another_seed_gives_another() -> None:
    assert draw_plan(7) == draw_plan(7)
    assert draw_plan(7) != draw_plan(8)


def test_every_minute_of_a_long_run_is_drawn_anew_and_holds_the_whole_catalogue() -> None:
    plan = draw_plan(7, minutes=5)
    assert shortfalls(plan, minutes=5) == []
    assert [f.target for f in plan if f.at_s < 60] == [f.target for f in draw_plan(7)]
    assert [f.target for f in plan if f.at_s < 60] != [f.target for f in plan if 60 <= f.at_s < 120]


def test_a_broker_that_is_not_ours_is_left_alone_and_nothing_else_changes() -> None:
    assert draw_plan(7, broker=False) == [fault for fault in draw_plan(7) if fault.kind is not Kind.BROKER]


def test_freezes_end_on_both_sides_of_the_transaction_and_the_session_timeout() -> None:
    below, between, above = FREEZES_S
    assert below[1] < TRANSACTION_S < between[0] < between[1] < SESSION_S < above[0]


def test_a_plan_that_lacks_a_fault_is_told() -> None:
    plan = draw_plan(7)
    first_ingress_kill = next(f for f in plan if f.kind is Kind.KILL and f.target == "ingress")
    assert shortfalls([f for f in plan if f is not first_ingress_kill]) == ["kill -9 of the ingress: 2 of 3"]
