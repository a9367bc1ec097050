"""Usage after the end of a subscription: which times no invoice counts, and which event is posted instead of one with
such a time.
"""

from dataclasses import dataclass
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from schemas.customers import OrgRecord, Period
from schemas.moments import MAX_US, SECOND_US, parse_us
from schemas.records import LagoEvent
from streams.core.delivery.after_end import AGAIN, Gap, gaps, instead_of, shared
from streams.core.mapping.billing_periods import billed

CODE = "ai_usage"
OCTOBER, NOVEMBER = 1_790_812_800 * SECOND_US, 1_793_491_200 * SECOND_US


def event(transaction_id: str = "a", at_us: int = OCTOBER, code: str = CODE, **properties: str) -> LagoEvent:
    moment = f"{at_us // SECOND_US}.{at_us % SECOND_US // 1000:03d}"
    return LagoEvent(transaction_id, "sub-a", code, moment, "1.25", {"unit": "7", "org_id": "org", **properties})


def org(*periods: Period) -> OrgRecord:
    return OrgRecord("org", periods=periods)


def monthly(name: str, started: int, ended: int | None = None) -> Period:
    return Period(name, started, ended, interval="monthly", charged=(CODE,))


def test_a_gap_starts_a_second_after_the_end_and_ends_with_the_next_period() -> None:
    """
    sub-a  |----------|.    |-----------
                        ^^^^
    """
    ended, again = 10 * SECOND_US, 20 * SECOND_US
    two = Period("sub-a", 0, ended), Period("sub-a", again)
    assert gaps(two, 0) == [Gap("sub-a", 11 * SECOND_US, again)]
    assert gaps(two[:1], 0) == [Gap("sub-a", 11 * SECOND_US, MAX_US - 1)]
    assert gaps((*two[:1], Period("sub-b", ended)), 0) == [Gap("sub-a", 11 * SECOND_US, MAX_US - 1)]


def test_a_plan_change_leaves_no_gap_even_if_lago_rounds_the_end_to_the_second() -> None:
    ended = 10 * SECOND_US
    assert gaps((Period("sub-a", 0, ended), Period("sub-a", ended + 700_000)), 0) == []


def test_a_late_end_is_noticed_even_if_an_earlier_period_ended_long_ago() -> None:
    """An external id that changed its plan months ago has an end long ago, too."""
    old, late = 5 * SECOND_US, 90 * SECOND_US
    lives = Period("sub-a", 0, old), Period("sub-a", old, late)
    assert gaps(lives, 50 * SECOND_US) == [Gap("sub-a", 91 * SECOND_US, MAX_US - 1)]
    assert gaps(lives, 91 * SECOND_US) == []


@dataclass(frozen=True)
class Life:
    began: int
    lasts: int


lives = st.lists(st.builds(Life, st.integers(0, 40), st.integers(1, 40)), min_size=1, max_size=4)


@given(lives, st.booleans(), st.integers(0, 100), st.integers(0, 999_999))
def test_a_time_is_in_a_gap_exactly_if_an_end_is_before_it_and_no_period_contains_it(
    told: list[Life], runs: bool, second: int, micros: int
) -> None:
    """In whole seconds; the second after an end is in no gap, because Lago reports an end to the second."""
    periods = [Period("s", one.began * SECOND_US, (one.began + one.lasts) * SECOND_US) for one in told]
    if runs:
        periods[-1] = msgspec.structs.replace(periods[-1], terminated_at=None)
    at = second * SECOND_US + micros
    in_gap = any(one.begins_us <= at < one.ends_us for one in gaps(periods, 0))
    ended = any(one.terminated_at is not None and one.terminated_at + SECOND_US <= at for one in periods)
    begun_lives = [(p.started_at, p.terminated_at) for p in periods if p.started_at <= at]
    alive = any(end is None or at < end + SECOND_US for _, end in begun_lives)
    assert in_gap == (ended and not alive)


def test_a_time_in_another_customers_period_with_the_same_id_belongs_to_that_customer() -> None:
    """
    org    sub  |-----|.
    other  sub            |-----|.
    org               .gap.taken.gap ...
    """
    other = Period("sub", 20 * SECOND_US, 30 * SECOND_US)
    own = gaps([Period("sub", 0, 10 * SECOND_US), Period("sub-b", 0, 10 * SECOND_US)], 0)
    assert shared(own, [("other", other)]) == [
        Gap("sub", 11 * SECOND_US, 20 * SECOND_US),
        Gap("sub", 20 * SECOND_US, 31 * SECOND_US, "other"),
        Gap("sub", 31 * SECOND_US, MAX_US - 1),
        Gap("sub-b", 11 * SECOND_US, MAX_US - 1),
    ]
    runs = Period("sub", 10 * SECOND_US)
    assert shared(own[:1], [("other", runs)]) == [Gap("sub", 11 * SECOND_US, MAX_US - 1, "other")]
    assert shared(own, [("other", Period("sub", 0, 10 * SECOND_US))]) == own


@given(lives, lives, st.integers(0, 100))
def test_every_time_in_a_gap_is_in_exactly_one_part_and_the_part_knows_the_owner_of_its_time(
    told: list[Life], others: list[Life], second: int
) -> None:
    own = gaps([Period("s", one.began * SECOND_US, (one.began + one.lasts) * SECOND_US) for one in told], 0)
    theirs = [Period("s", one.began * SECOND_US, (one.began + one.lasts) * SECOND_US) for one in others]
    pieces = shared(own, [("other", one) for one in theirs])
    at = second * SECOND_US + 7
    of_own = [one for one in own if one.begins_us <= at < one.ends_us]
    found = [one for one in pieces if one.begins_us <= at < one.ends_us]
    assert len(found) == len(of_own)
    lives_now = any(one.started_at <= at < (one.terminated_at or 0) + SECOND_US for one in theirs)
    assert [bool(one.customer) for one in found] == [lives_now for _ in of_own]


def test_the_next_subscription_bills_the_event_under_an_id_derived_from_the_old_one() -> None:
    after = org(monthly("sub-a", OCTOBER - 9, OCTOBER - 1), monthly("sub-b", OCTOBER + 5 * SECOND_US))
    again = instead_of(event(), after, OCTOBER + 9 * SECOND_US, CODE)
    assert again is not None
    assert (again.transaction_id, again.external_subscription_id) == ("a-again", "sub-b")
    assert parse_us(again.timestamp) == OCTOBER + 5 * SECOND_US
    assert again.precise_total_amount_cents == "1.25"
    assert again.properties == {
        **event().properties,
        "usage_end": "2026-10-01T00:00:00.000000Z",
        "instead_of": "a",
    }


def test_an_event_lost_a_second_time_is_billed_a_second_time_and_says_what_it_replaces() -> None:
    began = OCTOBER + 5 * SECOND_US
    first = instead_of(event(), org(monthly("sub-b", began)), began, CODE)
    assert first is not None
    second = instead_of(first, org(monthly("sub-b", began, began + 1), monthly("sub-c", NOVEMBER)), NOVEMBER, CODE)
    assert second is not None
    assert second.transaction_id == "a" + 2 * AGAIN
    assert second.properties["instead_of"] == "a" + AGAIN
    assert second.properties["usage_end"] == "2026-10-01T00:00:00.000000Z"


def test_usage_before_the_end_that_was_moved_after_it_goes_to_the_next_subscription_too() -> None:
    """It waited over the end of the month, was moved into the running month, and the subscription had ended in between."""
    after = org(monthly("sub-a", 0, OCTOBER - 5 * SECOND_US), monthly("sub-b", OCTOBER))
    again = instead_of(event(at_us=OCTOBER - 10 * SECOND_US), after, OCTOBER + SECOND_US, CODE)
    assert again is not None
    assert (again.external_subscription_id, parse_us(again.timestamp)) == ("sub-b", OCTOBER)


def test_without_a_subscription_that_charges_it_there_is_no_replacement() -> None:
    for nothing in (
        None,
        org(),
        org(monthly("sub-a", 0, OCTOBER)),
        org(Period("seats", 0, charged=("seats",))),
        org(monthly("sub-b", 0), monthly("sub-c", 0)),
    ):
        assert instead_of(event(), nothing, NOVEMBER, CODE) is None


def test_an_org_that_is_now_billed_in_another_currency_gets_no_replacement() -> None:
    """Its cents would be read in the other currency."""
    after = org(monthly("sub-a", 0, OCTOBER - 1), monthly("sub-b", OCTOBER))
    again = [
        instead_of(event(), msgspec.structs.replace(after, currency=one), NOVEMBER, CODE) for one in ("", "USD", "EUR")
    ]
    assert [one is not None for one in again] == [True, True, False]


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_a_replacement_never_gets_a_time_that_no_invoice_would_count(usage: int, began: int, asked: int) -> None:
    """For any days of the usage, of the next subscription's start and of the decision."""
    day = 24 * 3600 * SECOND_US
    now = OCTOBER + max(usage, began, asked) * day
    after = org(monthly("sub-a", 0, OCTOBER), monthly("sub-b", OCTOBER + began * day))
    again = instead_of(event(at_us=OCTOBER + usage * day), after, now, CODE)
    assert again is not None
    at = parse_us(again.timestamp)
    assert billed(after.periods, "sub-b", at, now, CODE).at_us == at


spans = st.lists(
    st.tuples(st.floats(0, 3), st.sampled_from([0.2, 0.9, 3.0, 20.0]), st.booleans()), min_size=1, max_size=4
)


@given(spans)
def test_a_time_is_in_at_most_one_gap_and_in_no_gap_inside_a_period(drawn: list[tuple[float, float, bool]]) -> None:
    """Lago reports an end to the second: two periods that follow within one second have gaps that would overlap."""
    at_us, true = 0, list[tuple[int, int]]()
    for pause, length, _ in drawn:
        begins = at_us + int(pause * 1e6)
        at_us = begins + int(length * 1e6)
        true.append((begins, at_us))
    result = [Period("sub", begins, ends // SECOND_US * SECOND_US) for begins, ends in true]
    found = gaps(result, 0)
    assert all(one.ends_us <= two.begins_us for one, two in pairwise(found))
    for begins, ends in true:
        assert not any(gap.begins_us < ends and begins < gap.ends_us for gap in found)


def test_an_event_billed_under_an_earlier_event_code_is_owed_too() -> None:
    """`LAGO_EVENT_CODE` was changed: a plan that charges only the new code bills nothing of it."""
    old = event(code="old_code", at_us=OCTOBER)
    charges_new = Period("sub-b", OCTOBER, None, interval="monthly", charged=(CODE,))
    assert instead_of(old, org(charges_new), NOVEMBER, CODE) is None
    both = msgspec.structs.replace(charges_new, charged=(CODE, "old_code"))
    assert instead_of(old, org(both), NOVEMBER, CODE) is not None
