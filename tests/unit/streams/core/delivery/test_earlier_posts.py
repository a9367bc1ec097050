"""An event that an earlier owner posted to another subscription is looked up there before it is posted again, because
Lago's deduplication would not find it.
"""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.customers import OrgRecord, Period
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import OutOfPeriodPolicy
from schemas.records import LagoEvent
from streams.core.delivery.batches import EventOutcome, Item
from streams.core.delivery.earlier_posts import AHEAD_US, APART_US, went_elsewhere
from streams.core.delivery.restamp import RestampDecision, restamp_decision
from tests.support.scripted_lago import ScriptedLago
from tests.support.sink import Sink, kinds_and_reasons
from tests.support.virtual_time import run_virtually

NOVEMBER = 1_793_491_200
USED = NOVEMBER + 10 * 24 * 3600
CODE = "llm_cost"
RUNS = Period("sub_1", 0, interval="monthly")
HAD_ENDED = Period("sub_1", 0, USED * SECOND_US, interval="monthly"), Period("sub_2", USED * SECOND_US)


def value(second: int = USED + 60, org_id: str = "org") -> bytes:
    return msgspec.json.encode(LagoEvent("a", "sub_1", CODE, f"{second}.000", "1.25", {"unit": "7", "org_id": org_id}))


def orgs(*periods: Period, updated_s: int = USED + 90) -> dict[str, OrgRecord]:
    return {"org": OrgRecord("org", periods=periods, updated_at=updated_s * SECOND_US)}


def elsewhere(known: dict[str, OrgRecord], at_s: int = USED + 100, event: bytes | None = None) -> bool:
    return went_elsewhere(event or value(), known, OutOfPeriodPolicy.SHIFT, at_s * SECOND_US, CODE)


def redelivered(lago: ScriptedLago, known: dict[str, OrgRecord], *, compare: bool = False) -> list[EventOutcome]:
    """Items of the owner after a kill, as the sink creates them."""
    now_us = (USED + 100) * SECOND_US
    item = Item("a", value(), not compare, compare, elsewhere=elsewhere(known))

    async def main() -> list[EventOutcome]:
        delivery = Sink(lago).delivery
        return await delivery.deliver(
            [item], judge=lambda one: restamp_decision(one, known, OutOfPeriodPolicy.SHIFT, now_us, CODE)
        )

    return run_virtually(main())


@pytest.mark.parametrize("compare", [False, True])
def test_an_event_posted_to_another_subscription_is_found_there_when_its_own_runs_again(compare: bool) -> None:
    """
    record:  sub_1 has ended   |  sub_1 runs
    sink:          posts to sub_2  x  the next owner judges: sub_1
    """
    moved = restamp_decision(value(), orgs(*HAD_ENDED), OutOfPeriodPolicy.SHIFT, (USED + 80) * SECOND_US, CODE)
    assert moved.subscription == "sub_2"
    lago = ScriptedLago(store=[msgspec.json.decode(moved.value, type=LagoEvent)])
    outcomes = redelivered(lago, orgs(RUNS), compare=compare)
    assert kinds_and_reasons(outcomes) == [("delivered", "confirmed")]
    assert outcomes[0].subscription == "sub_2"
    assert [one.external_subscription_id for one in lago.store] == ["sub_2"]


def test_an_event_that_lago_does_not_have_is_posted_after_one_lookup() -> None:
    lago = ScriptedLago(fault=lambda number, _ids: "429" if number < 3 else None)
    assert kinds_and_reasons(redelivered(lago, orgs(RUNS))) == [("delivered", "accepted")]
    assert lago.look_ups == ["a"]


def test_a_failed_lookup_is_repeated_before_the_event_is_posted() -> None:
    moved = restamp_decision(value(), orgs(*HAD_ENDED), OutOfPeriodPolicy.SHIFT, (USED + 80) * SECOND_US, CODE)
    failures = iter([True, True])
    lago = ScriptedLago(
        store=[msgspec.json.decode(moved.value, type=LagoEvent)], look_up_fails=lambda _id: next(failures, False)
    )
    assert kinds_and_reasons(redelivered(lago, orgs(RUNS))) == [("delivered", "confirmed")]
    assert (len(lago.posts), len(lago.look_ups)) == (0, 3)


def test_if_the_record_is_older_than_the_usage_there_is_no_lookup() -> None:
    """So a restart with a long backlog asks Lago almost nothing."""
    old = orgs(RUNS, updated_s=USED - 2 * 24 * 3600)
    assert not elsewhere(old)
    lago = ScriptedLago()
    redelivered(lago, old)
    assert lago.look_ups == []


def test_when_an_earlier_post_to_another_subscription_is_possible() -> None:
    changed = USED + 60 - AHEAD_US // SECOND_US
    assert not elsewhere(orgs(RUNS, updated_s=changed))
    assert elsewhere(orgs(RUNS, updated_s=changed + 1))
    assert not elsewhere(orgs(RUNS), event=value(org_id="unknown")), "of it there never was a record"
    assert not elsewhere(orgs(RUNS), event=b"no event")


def test_a_period_border_that_another_clock_may_have_passed_makes_one_possible() -> None:
    """The earlier owner had the faster clock: for it the month was over."""
    old, december = orgs(RUNS, updated_s=NOVEMBER), NOVEMBER + 30 * 24 * 3600
    apart = APART_US // SECOND_US
    late = value(december - 20)
    assert not elsewhere(old, december - apart - 1, late)
    assert elsewhere(old, december - apart, late)


DAYS = st.integers(0, 200)
LIVES = st.lists(
    st.builds(
        lambda name, start, lasts, interval, charged: Period(
            name,
            start * 24 * HOUR_US,
            None if lasts is None else (start + lasts) * 24 * HOUR_US,
            interval=interval,
            charged=charged,
        ),
        st.sampled_from(["sub_1", "sub_2"]),
        DAYS,
        st.none() | st.integers(1, 60),
        st.sampled_from(["", "weekly", "monthly"]),
        st.sampled_from([None, (CODE,), ("seats",)]),
    ),
    max_size=4,
)


@given(LIVES, DAYS, DAYS, DAYS, st.sampled_from([OutOfPeriodPolicy.SHIFT, OutOfPeriodPolicy.HOLD]))
def test_with_one_record_time_only_moves_an_event_forward(
    lives: list[Period], used: int, one: int, other: int, late: OutOfPeriodPolicy
) -> None:
    """The rule depends on this: an event that is not moved now was not moved earlier."""
    known = {"org": OrgRecord("org", periods=tuple(sorted(lives, key=lambda period: period.started_at)))}
    event = value(used * 24 * 3600 + 5)
    earlier, later = sorted([one, other])
    if restamp_decision(event, known, late, later * 24 * HOUR_US, CODE) == RestampDecision(event):
        assert restamp_decision(event, known, late, earlier * 24 * HOUR_US, CODE) == RestampDecision(event)
