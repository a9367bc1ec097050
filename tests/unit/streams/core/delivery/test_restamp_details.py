"""Moved events: what is logged about them, what they keep when they are moved again, and which metric decides."""

import msgspec
import pytest

from schemas.customers import OrgRecord, Period
from schemas.moments import SECOND_US
from schemas.policy import OutOfPeriodPolicy
from schemas.records import LagoEvent
from streams.core.delivery.restamp import USAGE_END, RestampDecision, moved_from, restamp_decision
from streams.core.mapping.held_reasons import ENDED, NO_CHARGE

OCTOBER, NOVEMBER, DECEMBER = 1_790_812_800, 1_793_491_200, 1_796_083_200
LATE, TOLD = f"{NOVEMBER - 5}.250", "2026-10-31T23:59:55.250000Z"
MONTHLY = Period("sub_1", OCTOBER * SECOND_US, interval="monthly")


def event(timestamp: str = LATE, code: str = "llm_cost", subscription: str = "sub_1", **more: str) -> LagoEvent:
    return LagoEvent("a", subscription, code, timestamp, "1.25", {"unit": "7", "org_id": "org", **more})


def at(
    second: int, *periods: Period, one: LagoEvent | None = None, late: OutOfPeriodPolicy = OutOfPeriodPolicy.SHIFT
) -> RestampDecision:
    orgs = {"org": OrgRecord("org", periods=periods or (MONTHLY,))}
    return restamp_decision(msgspec.json.encode(one or event()), orgs, late, second * SECOND_US, "llm_cost")


def posted(found: RestampDecision) -> LagoEvent:
    return msgspec.json.decode(found.value, type=LagoEvent)


def test_only_moved_events_are_logged() -> None:
    """Moved in time only, to another subscription only, and both."""
    assert at(NOVEMBER)[1:] == (f"{NOVEMBER}.000", "", "")
    ended = Period("sub_1", OCTOBER * SECOND_US, NOVEMBER * SECOND_US)
    beside = Period("sub_2", OCTOBER * SECOND_US)
    assert at(NOVEMBER, ended, beside)[1:] == ("", "sub_2", "")
    after = Period("sub_2", NOVEMBER * SECOND_US)
    assert at(NOVEMBER, ended, after)[1:] == (f"{NOVEMBER}.000", "sub_2", "")


def test_an_event_that_is_moved_again_keeps_the_original_end_of_its_usage() -> None:
    """It was sealed late already, and then waited over another border."""
    first = event(f"{NOVEMBER}.000", usage_end=TOLD)
    again = posted(at(DECEMBER, one=first))
    assert again.timestamp == f"{DECEMBER}.000"
    assert again.properties[USAGE_END] == TOLD
    assert moved_from(again, msgspec.json.encode(first)) == RestampDecision(
        msgspec.json.encode(first), f"{DECEMBER}.000"
    )


@pytest.mark.parametrize(
    "other",
    [
        event(f"{NOVEMBER}.000", code="api_calls", usage_end=TOLD),
        event(f"{NOVEMBER}.000", usage_end="2026-10-31T23:59:55Z"),
        event(f"{NOVEMBER}.000", usage_end=TOLD, unit="8"),
        event(LATE, usage_end=TOLD),
        event(f"{NOVEMBER}.000"),
    ],
)
def test_another_event_with_its_id_is_not_mistaken_for_it(other: LagoEvent) -> None:
    assert moved_from(other, msgspec.json.encode(event())) is None


def test_an_event_moved_only_to_another_subscription_is_recognised() -> None:
    stored, value = event(subscription="sub_2", usage_end=TOLD), msgspec.json.encode(event())
    assert moved_from(stored, value) == RestampDecision(value, "", "sub_2")


def test_calls_need_a_plan_that_charges_them_and_events_without_a_cost_do_not() -> None:
    seats = Period("sub_1", OCTOBER * SECOND_US, charged=("seats",))
    assert at(OCTOBER, seats).refused == NO_CHARGE
    free = msgspec.structs.replace(event(code="api_calls"), precise_total_amount_cents="0")
    assert at(OCTOBER, seats, one=free) == RestampDecision(msgspec.json.encode(free))
    ended = Period("sub_1", OCTOBER * SECOND_US, NOVEMBER * SECOND_US, charged=("llm_cost",))
    other = Period("sub_2", OCTOBER * SECOND_US, charged=("seats",))
    assert at(NOVEMBER, ended, other).refused == ENDED
    gone = Period("sub_1", OCTOBER * SECOND_US, NOVEMBER * SECOND_US, charged=("seats",))
    assert at(NOVEMBER, gone, other, one=free).subscription == "sub_2"


def test_with_the_policy_hold_an_event_that_need_not_move_is_posted() -> None:
    assert at(NOVEMBER - 1, late=OutOfPeriodPolicy.HOLD) == RestampDecision(msgspec.json.encode(event()))
