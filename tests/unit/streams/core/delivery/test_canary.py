"""What the events of Lago say of a call of the canary."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.moments import SECOND_US, to_iso
from schemas.policy import MeterPolicy
from schemas.records import LagoEvent
from streams.core.delivery.canary import (
    BILLED,
    BILLED_TWICE,
    LOST,
    NOT_BILLED,
    NOT_POSTED,
    NOT_SEEN,
    PATIENCE,
    SLOW,
    WATCHED_US,
    WRONG_AMOUNT,
    CanaryCall,
    CanaryPlan,
    CanaryWatch,
    canary_org,
    canary_result,
    check_interval,
)

MINUTE = 60 * SECOND_US
NOON = 1_796_212_800 * SECOND_US
PLAN = CanaryPlan("eu-canary", MINUTE, MINUTE, 5 * SECOND_US, 120 * SECOND_US, Decimal("0.0001"))


def event(call: CanaryCall, cents: str = "0.01", window_us: int = MINUTE, **properties: str) -> LagoEvent:
    start_us = call.ended_us - call.ended_us % (window_us or 1)
    window = {"window_start": to_iso(start_us), "window_end": to_iso(start_us + window_us)}
    return LagoEvent(
        transaction_id=f"eu-{call.id}",
        external_subscription_id="sub",
        code="ai_usage",
        timestamp="1",
        precise_total_amount_cents=cents,
        properties={"model": call.model, "requests": "1", **window, **properties},
    )


def test_a_call_is_due_when_its_window_its_grace_and_the_time_for_delivery_are_over() -> None:
    call = PLAN.call(NOON)
    assert (call.closes_us, call.due_us) == (NOON + 65 * SECOND_US, NOON + 185 * SECOND_US)
    assert (call.owed_cents, call.model) == (Decimal("0.01"), "eu-canary")
    late = PLAN.call(NOON + 59 * SECOND_US)
    assert late.closes_us == call.closes_us


def test_two_canaries_make_the_same_call_of_an_interval_and_different_ones_of_two() -> None:
    assert PLAN.call(NOON) == PLAN.call(NOON)
    assert PLAN.call(NOON).id != PLAN.call(NOON + MINUTE).id
    assert PLAN.next_us(NOON) == PLAN.next_us(NOON + MINUTE - 1) == NOON + MINUTE


def test_a_call_by_hand_shares_no_window_with_the_others() -> None:
    assert canary_result(PLAN.call(NOON), [event(PLAN.call(NOON, "ab12"))]) == ""


@pytest.mark.parametrize(
    ("cents", "result"),
    [
        ("0.01", BILLED),
        ("0.0100", BILLED),
        ("0.010000000000001", WRONG_AMOUNT),
        ("0", WRONG_AMOUNT),
        ("-0.01", WRONG_AMOUNT),
        ("", WRONG_AMOUNT),
        ("NaN", WRONG_AMOUNT),
        ("1e-2", BILLED),
    ],
)
def test_the_amount_is_compared_as_a_decimal(cents: str, result: str) -> None:
    call = PLAN.call(NOON)
    assert canary_result(call, [event(call, cents)]) == result


def test_the_event_of_another_window_says_nothing() -> None:
    call = PLAN.call(NOON)
    assert canary_result(call, [event(PLAN.call(NOON + MINUTE)), event(PLAN.call(NOON - MINUTE))]) == ""
    assert canary_result(call, [event(call, window_start="")]) == ""


def test_a_window_that_has_no_length_is_that_of_its_call_alone() -> None:
    call = PLAN.call(NOON)
    assert canary_result(call, [event(call, window_us=0)]) == BILLED
    assert canary_result(call, [event(PLAN.call(NOON + 1), window_us=0)]) == ""


def test_two_events_or_two_calls_in_one_are_billed_twice() -> None:
    call = PLAN.call(NOON)
    assert canary_result(call, [event(call), event(call)]) == BILLED_TWICE
    assert canary_result(call, [event(call, "0.02", requests="2")]) == BILLED_TWICE


def test_a_call_that_is_seen_is_told_once_with_its_wait() -> None:
    call, watch = PLAN.call(NOON), CanaryWatch()
    watch.posted(call, NOON)
    assert (watch.looks(call.closes_us - 1), watch.looks(call.closes_us)) == (False, True)
    [outcome] = watch.seen([event(call)], call.closes_us + SECOND_US)
    assert (outcome.result, outcome.wait_us, outcome.late) == (BILLED, 66 * SECOND_US, False)
    assert watch.seen([event(call)], call.due_us) == []
    assert (watch.overdue(call.due_us), watch.looks(call.due_us)) == ([], False)


def test_a_call_that_lago_lost_is_told_when_it_is_due_and_once() -> None:
    call, watch = PLAN.call(NOON), CanaryWatch()
    watch.posted(call, NOON)
    assert watch.seen([], call.due_us - 1) == []
    assert watch.overdue(call.due_us - 1) == []
    assert [outcome.result for outcome in watch.overdue(call.due_us)] == [NOT_BILLED]
    assert watch.overdue(call.due_us + MINUTE) == []
    assert not watch.looks(call.due_us)


def test_while_lago_does_not_answer_no_one_says_that_a_call_is_not_billed() -> None:
    call, watch = PLAN.call(NOON), CanaryWatch()
    watch.posted(call, NOON)
    watch.unanswered()
    assert [outcome.result for outcome in watch.overdue(call.due_us)] == [NOT_SEEN]


def test_a_call_that_comes_late_is_no_success_and_a_wrong_one_is_a_failure_of_its_own() -> None:
    watch, calls = CanaryWatch(), [PLAN.call(NOON), PLAN.call(NOON + MINUTE)]
    for call in calls:
        watch.posted(call, call.ended_us)
    watch.overdue(calls[1].due_us)
    late = watch.seen([event(calls[0]), event(calls[1], "7")], calls[1].due_us + MINUTE)
    assert [(outcome.result, outcome.late) for outcome in late] == [(BILLED, True), (WRONG_AMOUNT, True)]
    assert watch.may_come() is False


def test_a_second_event_is_told_after_the_first_was_right() -> None:
    call, watch = PLAN.call(NOON), CanaryWatch()
    watch.posted(call, NOON)
    watch.seen([event(call)], call.closes_us)
    [outcome] = watch.seen([event(call), event(call)], call.due_us + MINUTE)
    assert outcome.result == BILLED_TWICE
    assert watch.seen([event(call), event(call)], call.due_us + MINUTE) == []


@pytest.mark.parametrize("later", [True, False])
def test_a_call_is_lost_where_it_is_missing_for_an_hour_and_a_later_one_was_billed(later: bool) -> None:
    watch, calls = CanaryWatch(), [PLAN.call(NOON), PLAN.call(NOON + MINUTE)]
    for call in calls:
        watch.posted(call, call.ended_us)
    if later:
        watch.seen([event(calls[1])], calls[1].closes_us)
    due = [(outcome.result, outcome.overtaken) for outcome in watch.overdue(calls[1].due_us)]
    assert due == ([(NOT_BILLED, True)] if later else [(NOT_BILLED, False)] * 2)
    assert [outcome.result for outcome in watch.overdue(calls[1].due_us + WATCHED_US)] == ([LOST] if later else [])


def test_a_call_is_forgotten_an_hour_after_it_was_due() -> None:
    call, watch = PLAN.call(NOON), CanaryWatch()
    watch.posted(call, NOON)
    watch.seen([event(call)], call.closes_us)
    watch.overdue(call.due_us + WATCHED_US - 1)
    assert watch.since_us() == NOON
    watch.overdue(call.due_us + WATCHED_US)
    assert watch.since_us() is None


@pytest.mark.parametrize("which", [0, PATIENCE - 1])
def test_while_calls_are_missing_few_are_made_until_one_comes_however_late(which: int) -> None:
    watch, calls = CanaryWatch(), [PLAN.call(NOON + number * MINUTE) for number in range(10 * SLOW)]
    for call in calls[:PATIENCE]:
        assert watch.wants(call, MINUTE)
        watch.posted(call, call.ended_us)
        watch.overdue(call.due_us)
    assert len([call for call in calls if watch.wants(call, MINUTE)]) == 10
    assert watch.may_come()
    watch.seen([event(calls[which])], calls[PATIENCE].due_us)
    assert all(watch.wants(call, MINUTE) for call in calls)


def test_calls_that_the_ingress_does_not_take_wait_nowhere_and_go_on() -> None:
    watch, calls = CanaryWatch(), [PLAN.call(NOON + number * MINUTE) for number in range(10 * SLOW)]
    assert [watch.not_posted(call).result for call in calls] == [NOT_POSTED] * len(calls)
    assert all(watch.wants(call, MINUTE) for call in calls)


@given(st.integers(1, 3600), st.sampled_from([0, 1, 10, 60, 300, 3600]))
def test_calls_whose_interval_is_accepted_share_no_window(interval_s: int, window_s: int) -> None:
    policy = MeterPolicy(window_us=window_s * SECOND_US)
    if check_interval(interval_s, policy):
        return
    starts = [number * interval_s // (window_s or 1) for number in range(1, 50)]
    assert len(set(starts)) == len(starts)


def test_an_interval_within_a_window_is_refused_with_both_names() -> None:
    told = check_interval(60, MeterPolicy(window_us=3600 * SECOND_US))
    assert "CANARY_INTERVAL" in told and "WINDOW_SECONDS (3600)" in told


def test_the_canarys_org_is_one_of_the_deployments_orgs_and_a_customer_that_lago_finds() -> None:
    assert canary_org("eu.west", ("team-", "acct-")) == "team-eu_west-canary"
