"""Recognised as billed, or as counted without a cost: only the first makes a copy a duplicate (ADR 0017)."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.ledger import TAGGED_VERSION, Sum
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy
from streams.core.metering.identity import identity_of
from tests.support.calls import NOON, Raw, raw, slp
from tests.support.folding import Partition

MINUTE_US = 60 * SECOND_US


def copy(cost: str = "0.02", *, at_us: int = NOON, received_us: int = NOON, checked_at: int = 0, **fields: Any) -> Raw:
    return raw(0, slp(1, at_us=at_us, cost=cost, **fields), received_us=received_us, checked_at=checked_at)


def backfilled(cost: str, *, apart_us: int = 1000) -> Raw:
    record = copy(cost, at_us=NOON + apart_us, checked_at=NOON)
    record.value = (record.value or b"").replace(b'"source": "webhook"', b'"source": "backfill"')
    return record


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("step", [1, 10])
def test_a_first_copy_without_a_cost_does_not_make_the_priced_one_a_duplicate(step: int, restarted: bool) -> None:
    part = Partition().take(copy("0"), copy("0"))
    if restarted:
        part.restart()
    part.take(copy(), copy(), copy("0"), step=step)
    assert part.decisions == {"unpriced": 1, "billable": 1, "duplicate": 3}
    assert part.billed == Sum(1, Decimal("0.02"))
    assert [one["decision"] for one in part.enriched] == ["unpriced", "billable"]


def test_conservation_counts_deliveries() -> None:
    counters = Partition().take(copy("0"), copy(), copy()).ledger.position.counters
    assert (counters.received.calls, counters.unbilled.calls, counters.folded.calls, counters.duplicate.calls) == (
        3,
        1,
        1,
        1,
    )


@pytest.mark.parametrize("window_us", [0, MINUTE_US])
def test_a_record_names_the_ledger_unless_its_part_does(window_us: int) -> None:
    """So the tables know the same record that a rebuilt ledger counts again, and does not bill."""
    part = Partition(replace(MeterPolicy(), window_us=window_us)).take(copy("0"), copy())
    unbilled, billed = part.enriched
    assert unbilled["ledger"].endswith("-0-") and "part" not in unbilled
    assert billed["part"] == unbilled["ledger"] + "1" if window_us else billed["ledger"] == unbilled["ledger"]


@pytest.mark.parametrize("backfill_first", [True, False])
def test_the_same_holds_for_copies_with_another_identity(backfill_first: bool) -> None:
    """The webhook had no cost and LiteLLM's database has one, or the other way round: billed once."""
    first, second = (backfilled("0"), copy()) if backfill_first else (copy("0"), backfilled("0.02"))
    part = Partition().take(first, step=1).take(second, first, second, step=1)
    assert part.decisions == {"unpriced": 1, "billable": 1, "duplicate": 2}


@given(order=st.permutations([("0", False), ("0.02", False), ("0", True), ("0.02", True)]), step=st.integers(1, 4))
def test_of_copies_by_two_routes_in_any_order_one_is_billed(order: list[tuple[str, bool]], step: int) -> None:
    records = [backfilled(cost) if database else copy(cost) for cost, database in order]
    part = Partition().take(*records, step=step)
    assert part.billed == Sum(1, Decimal("0.02"))


def test_the_priced_copy_is_billed_at_any_later_time() -> None:
    """
    12:00 counted without cost   ... 22 h ...   10:00 the same call with its cost, remembered still
    """
    part = Partition().take(copy("0"), copy("0.02", received_us=NOON + 23 * HOUR_US + 30 * MINUTE_US))
    assert part.decisions == {"unpriced": 1, "billable": 1}


def test_a_call_that_a_policy_excluded_with_its_cost_is_settled() -> None:
    """A copy from a route that does not say whose key paid must not be billed."""
    part = Partition(replace(MeterPolicy(), bill_byok=False)).take(copy(byok=True), copy())
    assert part.decisions == {"byok": 1, "duplicate": 1}


def test_a_copy_with_another_cost_is_a_duplicate_and_reported() -> None:
    part = Partition().take(copy("0.02"), copy("0.03"), copy("0.02"), copy("0"))
    assert part.billed == Sum(1, Decimal("0.02"))
    assert part.decisions == {"billable": 1, "duplicate": 3}
    (result,) = part.rejected
    assert (result["reason"], result["stage"], result["offset"]) == ("cost_differs", "meter", 1)
    assert result["call"]["call"]["response_cost"] == 0.03
    assert part.steps[0].noticed.doubtful == {"cost_differs": Sum(1, Decimal("0.03"))}
    counters = part.ledger.position.counters
    assert (counters.duplicate.calls, counters.rejected.calls) == (3, 0)


def test_the_difference_is_reported_after_a_restart_and_for_another_route() -> None:
    part = Partition().take(copy("0.02")).restart().take(copy("0.03"), backfilled("0.04"))
    assert [one["reason"] for one in part.rejected] == ["cost_differs", "cost_differs"]


def test_equal_costs_with_different_digits_are_equal() -> None:
    assert Partition().take(copy("0.02"), copy("2.0e-2"), copy("0.0200000000000001")).rejected == []


def test_identities_of_an_older_release_make_copies_duplicates_as_before() -> None:
    """They are complete identities under `s`, without the information whether they were billed, so nothing is billed on
    a guess.
    """
    identity = _identity(1)
    part = Partition().take(raw(0, slp(2)))
    hour = NOON // HOUR_US
    part.changelog[b"s" + hour.to_bytes(8, "big") + (7).to_bytes(8, "big")] = identity
    part.restart().take(copy("0.02"), copy("0.03"))
    assert part.decisions == {"billable": 1, "duplicate": 2} and part.rejected == []
    assert len(part.ledger.seen) == 2
    part.idle(26).idle(1)
    assert {key[:1] for key in part.changelog} == {b"p", b"w", b"i"}


def test_the_changelog_requires_this_release_from_the_first_identity_on() -> None:
    part = Partition().take(copy("0"))
    assert part.steps[0].position.v == TAGGED_VERSION == part.restart().ledger.position.v


def test_a_settled_identity_is_kept_longer_than_the_chunk_that_counted_it_first() -> None:
    """
    12:00 counted   ... 11:00 settled ...   13:00 the first chunk is forgotten   the copy comes again
    """
    late = NOON + 23 * HOUR_US
    part = Partition().take(copy("0"), copy("0.02", received_us=late)).idle(3).idle(0.001)
    assert NOON // HOUR_US not in part.ledger.seen_blocks
    again = copy("0.02", at_us=NOON, received_us=late + 3 * HOUR_US, checked_at=late + 3 * HOUR_US)
    assert part.take(again).decisions["duplicate"] == 1
    assert part.restart().take(again).decisions["duplicate"] == 2


def test_an_identity_is_not_forgotten_an_hour_early() -> None:
    """
    h:59:00 a call arrives whose end is nine minutes ahead of the partition's clock
    h+24:00:30 a repeat of it, not beyond the dedupe retention yet: h is remembered up to h+25
    """
    received = NOON + 59 * MINUTE_US
    end = received + 9 * MINUTE_US
    part = Partition().take(copy(at_us=end, received_us=received))
    again = replace(copy(at_us=end, received_us=received), timestamp=(NOON + 24 * HOUR_US + 30 * SECOND_US) // 1000)
    part.idle(23).take(again)
    assert part.decisions["duplicate"] == 1
    assert part.idle(0.98).ledger.position.dropped_hour == NOON // HOUR_US
    assert part.idle(0.02).ledger.position.dropped_hour == NOON // HOUR_US + 1


@settings(max_examples=50, deadline=None)
@given(
    copies=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["0", "0.02"]), st.integers(0, 20)), max_size=25),
    data=st.data(),
)
def test_the_restored_memory_is_the_same_for_any_order_of_the_changelog(
    copies: list[tuple[int, str, int]], data: st.DataObject
) -> None:
    """Settled outweighs unpriced, and the newest hour the oldest, also when the first chunk is gone."""
    part, at_us = Partition(), NOON
    for number, cost, hours in copies:
        at_us += hours * HOUR_US
        part.take(raw(0, slp(number, cost=cost), received_us=at_us, checked_at=at_us))
    ids = [_identity(number) for number in range(6)]
    known, size = part.ledger.seen.tags(ids), len(part.ledger.seen)
    part.changelog = dict(data.draw(st.permutations(list(part.changelog.items()))))
    part.restart()
    assert part.ledger.seen.tags(ids) == known and len(part.ledger.seen) == size
    part.idle(14)
    kept = part.ledger.seen.tags(ids)
    assert part.restart().ledger.seen.tags(ids) == kept


def _identity(number: int) -> bytes:
    return identity_of("litellm", f"call-{number}", f"chatcmpl-{number}", "success", str((NOON - SECOND_US) // 1000))


@settings(max_examples=100, deadline=None)
@given(
    copies=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["0", "0.02", "0.03"])), max_size=30),
    step=st.integers(1, 8),
    restarts=st.booleans(),
)
def test_the_first_cost_of_each_call_is_what_is_billed(
    copies: list[tuple[int, str]], step: int, restarts: bool
) -> None:
    part, owed = Partition(), dict[int, Decimal]()
    for number, cost in copies:
        if Decimal(cost):
            owed.setdefault(number, Decimal(cost))
    records = [raw(0, slp(number, cost=cost)) for number, cost in copies]
    for start in range(0, len(records), 5):
        part.take(*records[start : start + 5], step=step)
        if restarts:
            part.restart()
    assert part.billed == Sum(len(owed), sum(owed.values(), Decimal(0)))
    position = part.ledger.position
    assert position.counters.folded.calls == position.decisions.get("billable", Sum()).calls
    assert position.counters.unbilled.calls == position.decisions.get("unpriced", Sum()).calls
