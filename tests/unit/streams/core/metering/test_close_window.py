"""Windows leave the ledger: when they are due, for which org, and with every sum unchanged."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.errors import LedgerBroken
from schemas.ledger import Position, Window
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy, OutOfPeriodPolicy
from streams.core.mapping.held_reasons import ENDED, OUTSIDE_PERIOD
from streams.core.mapping.resolve import resolve
from streams.core.metering.close_window import coalesce, due, due_windows, release, seal
from streams.core.metering.conservation import sum_of_windows
from streams.core.metering.fold import Fold
from streams.core.metering.ledger_state import LedgerState, verify
from streams.core.metering.step_changes import apply
from tests.support.calls import NOON, Raw, raw, slp

POLICY = MeterPolicy()
PREFIX = "d-t-3-"
RUNNING = OrgRecord("org", periods=(Period("sub", 0),))


def mapped(*versions: MappingVersion) -> dict[str, CustomerRecord]:
    return {"acme": CustomerRecord("acme", versions or (MappingVersion(NOON, "org", "tenant"),), 0, 0)}


def window(**fields: object) -> Window:
    base = Window(7, 9, "acme", "end_user", "org", "sub", "", "m", "p", (), NOON, 60 * SECOND_US, NOON, NOON + 1)
    for name, value in {"count": 3, "total_tokens": 66, "cost": Decimal("0.0000145"), **fields}.items():
        setattr(base, name, value)
    return base


def folded(records: list[Raw], customers: dict[str, CustomerRecord], orgs: dict[str, OrgRecord]) -> LedgerState:
    ledger = LedgerState(Position())
    fold = Fold(POLICY, PREFIX)

    def target(customer: str, at_us: int, kind: str) -> object:
        return resolve(customers.get(customer), at_us, kind, orgs)

    numbered = [replace(record, offset=n) for n, record in enumerate(records)]
    apply(ledger, fold(ledger, numbered, target), NOON)  # type: ignore[arg-type]
    return ledger


def test_a_window_is_due_after_its_end_and_the_grace() -> None:
    ripe = NOON + 65 * SECOND_US
    assert not due(window(), NOON, NOON, ripe - 1, POLICY)
    assert due(window(), NOON, ripe - 1, ripe, POLICY)


def test_a_window_that_was_opened_late_waits_for_a_pause_in_its_calls_but_not_forever() -> None:
    opened = NOON + HOUR_US
    assert not due(window(), opened, opened + 5 * SECOND_US, opened + 6 * SECOND_US, POLICY)
    assert due(window(), opened, opened + 5 * SECOND_US, opened + 7 * SECOND_US, POLICY)
    assert due(window(), opened, opened + 60 * SECOND_US, opened + 60 * SECOND_US, POLICY)


def test_an_event_has_the_exact_sum_and_a_unit_that_is_never_zero() -> None:
    changes = seal(Position(), [window(total_tokens=0)], {"org": RUNNING}, POLICY, PREFIX, 3, NOON)
    event = changes.sealed[0].event
    assert event.transaction_id == "d-t-3-7"
    assert event.precise_total_amount_cents == "0.00145"
    assert event.properties["unit"] == "1"
    assert event.timestamp == f"{(NOON + 1) // SECOND_US}.000"
    assert all(type(value) is str for value in event.properties.values())


def test_seal_numbers_have_no_gap_and_sealed_sums_are_counted() -> None:
    changes = seal(Position(seal_seq=4), [window(), window(first=8)], {}, POLICY, PREFIX, 3, NOON)
    assert [sealed.seal_seq for sealed in changes.sealed] == [5, 6]
    assert changes.position.seal_seq == 6
    assert changes.position.counters.sealed.calls == 6


def test_usage_before_a_subscription_began_is_moved_to_its_start() -> None:
    later = OrgRecord("org", periods=(Period("sub", NOON + HOUR_US),))
    changes = seal(Position(), [window()], {"org": later}, POLICY, PREFIX, 3, NOON)
    event = changes.sealed[0].event
    assert event.timestamp == f"{(NOON + HOUR_US) // SECOND_US}.000"
    assert event.properties["usage_end"].startswith("2026-11-20T12:00:00.000001")


@pytest.mark.parametrize(
    ("policy", "period", "why"),
    [
        (POLICY, Period("sub", 0, NOON - HOUR_US), ENDED),
        (replace(POLICY, out_of_period_policy=OutOfPeriodPolicy.HOLD), Period("sub", NOON + HOUR_US), OUTSIDE_PERIOD),
    ],
)
def test_usage_that_no_period_bills_is_held(policy: MeterPolicy, period: Period, why: str) -> None:
    changes = seal(Position(), [window()], {"org": OrgRecord("org", periods=(period,))}, policy, PREFIX, 3, NOON)
    assert not changes.sealed
    held = changes.windows[7]
    assert held is not None and held.held == why and held.subscription == ""


def test_held_usage_is_released_when_its_mapping_exists_and_not_before() -> None:
    ledger = folded([raw(0, slp(1)), raw(0, slp(2)), raw(0, slp(3, at_us=NOON - 5 * SECOND_US))], {}, {})
    assert len(ledger.windows) == 2 and "acme" in ledger.held
    assert release(ledger, {}, {"org": RUNNING}, POLICY, 100).empty
    apply(ledger, release(ledger, mapped(), {"org": RUNNING}, POLICY, 100), NOON)
    assert not ledger.held
    assert {window.subscription for window in ledger.windows.values()} == {"sub"}
    assert sum_of_windows(ledger.windows.values()) == ledger.position.counters.folded
    verify(ledger)


def test_released_windows_of_one_minute_become_one_part_that_lists_them() -> None:
    ledger = folded([raw(0, slp(n, at_us=NOON + n * SECOND_US)) for n in range(5)], {}, {})
    assert len(ledger.windows) == 5
    apply(ledger, release(ledger, mapped(), {"org": RUNNING}, POLICY, 100), NOON)
    (part,) = ledger.windows.values()
    assert sorted([part.first, *part.merged]) == [0, 1, 2, 3, 4]
    assert part.count == 5
    assert part.max_end_us == NOON + 4 * SECOND_US


@settings(max_examples=60)
@given(ends=st.lists(st.integers(-30, 30), min_size=1, max_size=30), change=st.integers(-25, 25))
def test_held_calls_go_to_the_mapping_version_of_their_own_end_time(ends: list[int], change: int) -> None:
    """Calls |..held..| then two versions appear at once: each side gets its own calls, to the cent."""
    at = NOON + change * SECOND_US
    records = [raw(0, slp(n, at_us=NOON + end * SECOND_US + 1000)) for n, end in enumerate(ends)]
    versions = (
        MappingVersion(0, "org", "tenant", external_subscription_id="old"),
        MappingVersion(at, "org", "tenant", external_subscription_id="new"),
    )
    ledger = folded(records, {}, {})
    apply(ledger, release(ledger, mapped(*versions), {}, POLICY, 10_000), NOON)
    by_target = dict.fromkeys(("old", "new"), 0)
    for part in ledger.windows.values():
        by_target[part.subscription] += part.count
    new = sum(NOON + end * SECOND_US + 1000 >= at for end in ends)
    assert by_target == {"old": len(ends) - new, "new": new}


def test_old_held_windows_are_merged_by_customer_model_and_quarter_of_an_hour() -> None:
    ledger = folded([raw(0, slp(n, at_us=NOON + n * SECOND_US)) for n in range(50)], {}, {})
    apply(ledger, coalesce(ledger, {}, {}, POLICY, NOON + 2 * HOUR_US, 10_000), NOON)
    assert len(ledger.windows) == 1
    assert sum_of_windows(ledger.windows.values()) == ledger.position.counters.folded
    assert coalesce(ledger, {}, {}, POLICY, NOON + 2 * HOUR_US, 10_000).empty
    apply(ledger, release(ledger, mapped(), {"org": RUNNING}, POLICY, 100), NOON)
    assert sum_of_windows(ledger.windows.values()).calls == 50
    verify(ledger)


def test_the_number_of_due_windows_is_bounded_and_all_have_a_subscription() -> None:
    records = [raw(0, slp(n, model=f"m{n}"), customer="acme" if n % 2 else "stranger") for n in range(20)]
    ledger = folded(records, mapped(), {"org": RUNNING})
    late = NOON + HOUR_US
    assert len(due_windows(ledger, late, POLICY, 100)) == 10
    assert len(due_windows(ledger, late, POLICY, 4)) == 4


def test_a_ledger_that_does_not_add_up_is_refused() -> None:
    ledger = folded([raw(0, slp(1))], mapped(), {"org": RUNNING})
    next(iter(ledger.windows.values())).cost += Decimal("0.000000000001")
    with pytest.raises(LedgerBroken, match="ledger_imbalance"):
        verify(ledger)
