"""Sealing, releasing and merging at their limits: how many in one step, which of several, and what is counted."""

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.ledger import HELD_LENGTH_US, Position, Window
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy, OutOfPeriodPolicy
from schemas.wire import Metered
from streams.core.mapping.held_reasons import ENDED, NO_CHARGE
from streams.core.mapping.time_spans import QUARTER_US
from streams.core.metering.close_window import MOST_MERGED, coalesce, due, merged, release, seal
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes, apply
from tests.support.calls import NOON

POLICY = MeterPolicy()
MINUTE_US = 60 * SECOND_US
LATER = NOON + 2 * HOUR_US
ORGS = {"org": OrgRecord("org", periods=(Period("sub", 0, charged=("ai_usage",)),))}


def window(first: int, at_us: int = NOON, customer: str = "acme", held: str = "no_mapping", **fields: Any) -> Window:
    where = ("", "", held) if held else ("org", "sub", "")
    length = HELD_LENGTH_US if held else MINUTE_US
    start = at_us - at_us % length
    one = Window(first, first, customer, "end_user", *where, "m", "p", (), start, length, at_us, at_us)
    for name, value in {"count": 1, "cost": Decimal(first), **fields}.items():
        setattr(one, name, value)
    return one


def ledgers_of(*windows: Window) -> LedgerState:
    ledger = LedgerState(Position())
    for one in windows:
        ledger.put(one, NOON)
    return ledger


def mapped(*customers: str) -> dict[str, CustomerRecord]:
    return {name: CustomerRecord(name, (MappingVersion(0, "org", "t"),), 0, 0) for name in customers}


def removed_windows(changes: Changes) -> list[int]:
    return sorted(first for first, one in changes.windows.items() if one is None)


def remaining_windows(changes: Changes) -> list[Window]:
    return [one for one in changes.windows.values() if one is not None]


def sealed(windows: Iterable[Window], orgs: dict[str, OrgRecord], policy: MeterPolicy = POLICY) -> Changes:
    return seal(Position(), windows, orgs, policy, "d-t-3-", 3, LATER)


def test_a_window_opened_at_the_end_of_its_grace_waits_for_a_pause_in_its_calls() -> None:
    ripe = NOON + 65 * SECOND_US
    assert due(window(1, held=""), ripe - 1, ripe, ripe, POLICY)
    assert not due(window(1, held=""), ripe, ripe, ripe, POLICY)


def test_a_window_that_is_kept_does_not_keep_others_from_being_sealed() -> None:
    ended = {**ORGS, "gone": OrgRecord("gone", periods=(Period("sub", 0, NOON),))}
    changes = sealed([window(1, held="", org_id="gone"), window(2, held=""), window(3, held="", org_id="gone")], ended)
    assert [one.event.transaction_id for one in changes.sealed] == ["d-t-3-2"]
    assert (changes.kept, changes.shifted) == (2, 0)
    assert [one.held for one in remaining_windows(changes)] == [ENDED, ENDED]
    assert (changes.position.seal_seq, changes.position.counters.sealed.calls) == (1, 1)


def test_moved_usage_is_counted() -> None:
    later = {"org": OrgRecord("org", periods=(Period("sub", NOON + HOUR_US),))}
    assert sealed([window(1, held=""), window(2, NOON + HOUR_US, held="")], later).shifted == 1


def test_calls_are_held_if_the_plan_does_not_charge_them_and_events_without_an_amount_are_not() -> None:
    seats = {"org": OrgRecord("org", periods=(Period("sub", 0, charged=("seats",)),))}
    (kept,) = remaining_windows(sealed([window(1, held="")], seats))
    assert kept.held == NO_CHARGE
    other = Metered("org", "t", "api_call", NOON, {})
    changes = sealed([window(1, held="", metered=other, identity=b"i" * 16, cost=Decimal(0), length_us=0)], seats)
    assert len(changes.sealed) == 1


@pytest.mark.parametrize("late", OutOfPeriodPolicy)
def test_usage_that_can_never_be_billed_is_held_by_either_policy(late: OutOfPeriodPolicy) -> None:
    ended = {"org": OrgRecord("org", periods=(Period("sub", 0, NOON),))}
    (kept,) = remaining_windows(sealed([window(1, held="")], ended, replace(POLICY, out_of_period_policy=late)))
    assert kept.held == ENDED


def test_a_customer_without_a_mapping_does_not_keep_others_held() -> None:
    ledger = ledgers_of(window(1, customer="stranger"), window(2), window(3, customer="other"))
    assert [
        one.first for one in remaining_windows(release(ledger, mapped("acme", "other"), ORGS, POLICY, 100, LATER))
    ] == [2, 3]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_step_releases_no_more_than_its_limit(limit: int) -> None:
    """For one customer, and for several."""
    one = ledgers_of(*[window(n, NOON + n * MINUTE_US) for n in range(5)])
    assert len(remaining_windows(release(one, mapped("acme"), ORGS, POLICY, limit, LATER))) == limit
    several = ledgers_of(*[window(n, NOON + n * MINUTE_US, f"c{n}") for n in range(5)])
    assert len(remaining_windows(release(several, mapped(*several.held), ORGS, POLICY, limit, LATER))) == limit


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_step_merges_no_more_than_its_limit(limit: int) -> None:
    one = ledgers_of(*[window(n, NOON + n * QUARTER_US) for n in range(4)])
    assert len(coalesce(one, {}, {}, POLICY, LATER + HOUR_US, limit).windows) == limit
    several = ledgers_of(*[window(n, NOON, f"c{n}") for n in range(5)])
    assert len(coalesce(several, {}, {}, POLICY, LATER, limit).windows) == limit


def test_held_windows_are_merged_once_they_are_older_than_an_hour() -> None:
    """The age of the youngest call counts; a younger window, one with a target, or a single call does not keep others
    from being merged.
    """
    now_us = NOON + HOUR_US
    some = (window(1), window(2, NOON - 1), window(3, NOON - 2, identity=b"i" * 16), window(4, NOON - SECOND_US - 1))
    changes = coalesce(ledgers_of(*some), {}, {}, POLICY, now_us, 100)
    assert removed_windows(changes) == [4]
    (one,) = remaining_windows(changes)
    assert (one.first, one.merged, one.cost, one.count) == (2, (4,), 6, 2)
    assert (one.start_us, one.length_us) == (NOON - QUARTER_US, QUARTER_US)


def test_a_held_window_with_a_target_is_not_merged() -> None:
    ledger = ledgers_of(window(1), window(2, customer="stranger"))
    assert [one.first for one in remaining_windows(coalesce(ledger, mapped("acme"), ORGS, POLICY, LATER, 100))] == [2]
    teams = {"acme": CustomerRecord("acme", (MappingVersion(0, "org", "t", id_kind="team"),), 0, 0)}
    ledger = ledgers_of(window(1, id_kind="team"), window(2), window(3, NOON + SECOND_US))
    changes = coalesce(ledger, teams, ORGS, POLICY, LATER, 100)
    assert (removed_windows(changes), [one.first for one in remaining_windows(changes)]) == ([3], [2])


def test_a_border_inside_a_window_does_not_keep_others_from_being_merged() -> None:
    """The mapping starts between the two calls of the first window; they can no longer be decided separately."""
    versions = (MappingVersion(0, "euro", "t"), MappingVersion(NOON + SECOND_US, "euro", "t"))
    customers = {"acme": CustomerRecord("acme", versions, 0, 0)}
    orgs = {"euro": OrgRecord("euro", currency="EUR", periods=(Period("s", 0),))}
    across, after = window(1, max_end_us=NOON + 2 * SECOND_US), window(2, NOON + 5 * SECOND_US)
    assert [
        one.first for one in remaining_windows(coalesce(ledgers_of(across, after), customers, orgs, POLICY, LATER, 9))
    ] == [2]


@pytest.mark.parametrize(("already", "one"), [(MOST_MERGED - 1, True), (MOST_MERGED, False)])
@pytest.mark.parametrize("by_the_open_one", [True, False])
def test_an_event_names_at_most_4000_windows(already: int, *, one: bool, by_the_open_one: bool) -> None:
    """One more starts another event: nothing is left out, and no record exceeds Kafka's limit."""
    assert MOST_MERGED == 4_000
    names = tuple(range(100, 100 + already))
    there = window(1, held="", merged=names if by_the_open_one else names[1:])
    coming = window(2, merged=() if by_the_open_one else (9,))
    (into, *others) = sorted(
        remaining_windows(release(ledgers_of(there, coming), mapped("acme"), ORGS, POLICY, 9, LATER)), key=_first
    )
    assert len(others) == (0 if one else 1)
    assert into.count + sum(other.count for other in others) == 2
    assert len(into.merged) == (already + 1 if one else already - (0 if by_the_open_one else 1))


def _first(one: Window) -> int:
    return one.first


def test_a_held_metered_event_is_released_as_one_event() -> None:
    other = Metered("acme", "t", "api_call", NOON, {})
    at = NOON + 30 * SECOND_US
    held = window(1, at, metered=other, identity=b"i" * 16, length_us=0, start_us=at, cost=Decimal(0))
    orgs = {"acme": OrgRecord("acme", periods=(Period("sub", 0),))}
    (one,) = remaining_windows(release(ledgers_of(held), {}, orgs, POLICY, 9, LATER))
    assert (one.start_us, one.length_us, one.org_id, one.subscription, one.held) == (at, 0, "acme", "sub", "")


def test_an_org_without_a_subscription_gets_nothing_and_a_second_look_changes_nothing() -> None:
    other = Metered("acme", "t", "api_call", NOON, {})
    held = window(1, metered=other, identity=b"i" * 16, length_us=0)
    for orgs in ({}, {"acme": OrgRecord("acme")}):
        assert release(ledgers_of(held), {}, orgs, POLICY, 9, LATER).empty


def test_every_count_of_merged_windows_is_the_sum_of_both() -> None:
    counts = ("count", "tokens_input", "tokens_output", "total_tokens", "cached_tokens", "reasoning_tokens", "cost")
    one = window(1, NOON, **dict(zip(counts, range(1, 8), strict=True)))
    other = window(2, NOON - 5, **dict(zip(counts, range(10, 80, 10), strict=True)))
    both = merged(one, other)
    assert [getattr(both, name) for name in counts] == [11, 22, 33, 44, 55, 66, 77]
    assert (both.first, both.last, both.merged) == (1, 2, (2,))
    assert (both.min_end_us, both.max_end_us) == (NOON - 5, NOON)


def test_applying_a_release_keeps_the_sum() -> None:
    ledger = ledgers_of(*[window(n, NOON + n * SECOND_US) for n in range(1, 6)])
    apply(ledger, release(ledger, mapped("acme"), ORGS, POLICY, 100, LATER), LATER)
    (open_one,) = ledger.windows.values()
    assert (open_one.cost, open_one.count, open_one.start_us, open_one.length_us) == (15, 5, NOON, MINUTE_US)
