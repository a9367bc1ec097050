"""The plan of faults: for any seed, a run contains the faults that it claims."""

import pytest

from tests.faults.plan import FREEZES_S, SESSION_S, TRANSACTION_S, Kind, draw_plan, shortfalls


@pytest.mark.parametrize("seed", range(100))
def test_every_seed_gives_a_plan_with_at_least_three_faults_of_every_kind_that_fit_into_the_load(seed: int) -> None:
    assert shortfalls(draw_plan(seed)) == []


def test_a_seed_repeats_its_plan_and_another_seed_gives_another() -> None:
    assert draw_plan(7) == draw_plan(7)
    assert draw_plan(7) != draw_plan(8)


def test_every_minute_of_a_long_run_is_drawn_again_and_contains_the_whole_catalogue() -> None:
    plan = draw_plan(7, minutes=5)
    assert shortfalls(plan, minutes=5) == []
    assert [f.target for f in plan if f.at_s < 60] == [f.target for f in draw_plan(7)]
    assert [f.target for f in plan if f.at_s < 60] != [f.target for f in plan if 60 <= f.at_s < 120]


def test_a_foreign_broker_gets_no_faults_and_the_others_stay_the_same() -> None:
    assert draw_plan(7, broker=False) == [fault for fault in draw_plan(7) if fault.kind is not Kind.BROKER]


def test_freezes_are_both_shorter_and_longer_than_the_transaction_and_session_timeouts() -> None:
    below, between, above = FREEZES_S
    assert below[1] < TRANSACTION_S < between[0] < between[1] < SESSION_S < above[0]


def test_a_plan_without_a_kind_of_fault_is_reported() -> None:
    plan = draw_plan(7)
    first_ingress_kill = next(f for f in plan if f.kind is Kind.KILL and f.target == "ingress")
    assert shortfalls([f for f in plan if f is not first_ingress_kill]) == ["kill -9 of the ingress: 2 of 3"]
