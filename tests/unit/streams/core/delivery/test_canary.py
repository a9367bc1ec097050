"""The canary: what Lago's events say about one of its calls."""

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


def test_a_call_is_due_after_its_window_its_grace_and_the_time_for_delivery() -> None:
    call = PLAN.call(NOON)
    assert (call.closes_us, call.due_us) == (NOON + 65 * SECOND_US, NOON + 185 * SECOND_US)
    assert (call.owed_cents, call.model) == (Decimal("0.01"), "eu-canary")
    late = PLAN.call(NOON + 59 * SECOND_US)
    assert late.closes_us == call.closes_us


def test_two_canaries_make_the_same_call_in_one_interval_and_different_calls_in_two() -> None:
    assert PLAN.call(NOON) == PLAN.call(NOON)
    assert PLAN.call(NOON).id != PLAN.call(NOON + MINUTE).id
    assert PLAN.next_us(NOON) == PLAN.next_us(NOON + MINUTE - 1) == NOON + MINUTE


def test_a_single_call_by_command_shares_no_window_with_the_others() -> None:
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


def test_the_event_of_another_window_is_ignored() -> None:
    call = PLAN.call(NOON)
    assert canary_result(call, [event(PLAN.call(NOON + MINUTE)), event(PLAN.call(NOON - MINUTE))]) == ""
    assert canary_result(call, [event(call, window_start="")]) == ""


def test_a_window_without_a_length_contains_only_its_own_call() -> None:
    call = PLAN.call(NOON)
    assert canary_result(call, [event(call, window_us=0)]) == BILLED
    assert canary_result(call, [event(PLAN.call(NOON + 1), window_us=0)]) == ""


def test_two_events_or_two_calls_in_one_event_are_billed_twice() -> None:
    call = PLAN.call(NOON)
    assert canary_result(call, [event(call), event(call)]) == BILLED_TWICE
    assert canary_result(call, [event(call, "0.02", requests="2")]) == BILLED_TWICE


def test_a_call_that_is_found_is_reported_once_with_its_delay() -> None:
    call, watch = PLAN.call(NOON), CanaryWatch()
    watch.posted(call, NOON)
    assert (watch.looks(call.closes_us - 1), watch.looks(call.closes_us)) == (False, True)
    [outcome] = watch.seen([event(call)], call.closes_us + SECOND_US)
    assert (outcome.result, outcome.wait_us, outcome.late) == (BILLED, 66 * SECOND_US, False)
    assert watch.seen([event(call)], call.due_us) == []
    assert (watch.overdue(call.due_us), watch.looks(call.due_us)) == ([], False)


def test_a_call_that_lago_lost_is_reported_once_when_it_is_due() -> None:
    call, watch = PLAN.call(NOON), CanaryWatch()
    watch.posted(call, NOON)
    assert watch.seen([], call.due_us - 1) == []
    assert watch.overdue(call.due_us - 1) == []
    assert [outcome.result for outcome in watch.overdue(call.due_us)] == [NOT_BILLED]
    assert watch.overdue(call.due_us + MINUTE) == []
    assert not watch.looks(call.due_us)


def test_while_lago_does_not_answer_no_call_is_reported_as_not_billed() -> None:
    call, watch = PLAN.call(NOON), CanaryWatch()
    watch.posted(call, NOON)
    watch.unanswered()
    assert [outcome.result for outcome in watch.overdue(call.due_us)] == [NOT_SEEN]


def test_a_late_call_is_no_success_and_a_wrong_one_is_its_own_failure() -> None:
    watch, calls = CanaryWatch(), [PLAN.call(NOON), PLAN.call(NOON + MINUTE)]
    for call in calls:
        watch.posted(call, call.ended_us)
    watch.overdue(calls[1].due_us)
    late = watch.seen([event(calls[0]), event(calls[1], "7")], calls[1].due_us + MINUTE)
    assert [(outcome.result, outcome.late) for outcome in late] == [(BILLED, True), (WRONG_AMOUNT, True)]
    assert watch.may_come() is False


def test_a_second_event_is_reported_after_the_first_was_right() -> None:
    call, watch = PLAN.call(NOON), CanaryWatch()
    watch.posted(call, NOON)
    watch.seen([event(call)], call.closes_us)
    [outcome] = watch.seen([event(call), event(call)], call.due_us + MINUTE)
    assert outcome.result == BILLED_TWICE
    assert watch.seen([event(call), event(call)], call.due_us + MINUTE) == []


@pytest.mark.parametrize("later", [True, False])
def test_a_call_is_lost_if_it_is_missing_for_an_hour_and_a_later_one_was_billed(later: bool) -> None:
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
def test_while_calls_are_missing_few_new_ones_are_made_until_one_is_found(which: int) -> None:
    watch, calls = CanaryWatch(), [PLAN.call(NOON + number * MINUTE) for number in range(10 * SLOW)]
    for call in calls[:PATIENCE]:
        assert watch.wants(call, MINUTE)
        watch.posted(call, call.ended_us)
        watch.overdue(call.due_us)
    assert len([call for call in calls if watch.wants(call, MINUTE)]) == 10
    assert watch.may_come()
    watch.seen([event(calls[which])], calls[PATIENCE].due_us)
    assert all(watch.wants(call, MINUTE) for call in calls)


def test_calls_that_the_ingress_refuses_are_not_waited_for_and_calls_go_on() -> None:
    watch, calls = CanaryWatch(), [PLAN.call(NOON + number * MINUTE) for number in range(10 * SLOW)]
    assert [watch.not_posted(call).result for call in calls] == [NOT_POSTED] * len(calls)
    assert all(watch.wants(call, MINUTE) for call in calls)


@given(st.integers(1, 3600), st.sampled_from([0, 1, 10, 60, 300, 3600]))
def test_calls_at_an_accepted_interval_share_no_window(interval_s: int, window_s: int) -> None:
    policy = MeterPolicy(window_us=window_s * SECOND_US)
    if check_interval(interval_s, policy):
        return
    starts = [number * interval_s // (window_s or 1) for number in range(1, 50)]
    assert len(set(starts)) == len(starts)


def test_an_interval_shorter_than_a_window_is_refused_with_both_settings_names() -> None:
    result = check_interval(60, MeterPolicy(window_us=3600 * SECOND_US))
    assert "CANARY_INTERVAL" in result and "WINDOW_SECONDS (3600)" in result


def test_the_canarys_org_id_has_an_org_prefix_and_only_characters_that_lago_can_find() -> None:
    assert canary_org("eu.west", ("team-", "acct-")) == "team-eu_west-canary"
