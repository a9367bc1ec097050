"""Held usage is not released to a subscription without a period that would bill it."""

from dataclasses import replace
from decimal import Decimal

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.ledger import Position, Window
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy, OutOfPeriodPolicy
from streams.core.mapping.held_reasons import OUTSIDE_PERIOD
from streams.core.metering.close_window import release
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes, apply
from tests.support.calls import NOON

POLICY = MeterPolicy(out_of_period_policy=OutOfPeriodPolicy.HOLD)
CUSTOMERS = {
    "acme": CustomerRecord("acme", (MappingVersion(0, "org", "tenant", external_subscription_id="sub"),), 0, 0)
}


def held_ledger() -> LedgerState:
    """A ledger with one held second, an hour before noon."""
    ledger = LedgerState(Position())
    at_us = NOON - HOUR_US
    window = Window(7, 9, "acme", "end_user", "", "", "no_mapping", "m", "p", (), at_us, SECOND_US, at_us, at_us + 1)
    window.count, window.cost = 3, Decimal("0.5")
    changes = Changes(ledger.position)
    changes.windows[7] = window
    apply(ledger, changes, NOON)
    return ledger


def released(changes: Changes) -> bool:
    """Whether the held window has gone into an open one."""
    return any(window is not None and not window.held for window in changes.windows.values())


def test_usage_outside_every_period_of_its_named_subscription_stays_held() -> None:
    """The mapping names the subscription, so it is found; whether Lago bills that time is another question.

    usage     | 11:00
    period            | 12:00 ->
    """
    later = {"org": OrgRecord("org", periods=(Period("sub", NOON),))}
    [kept] = release(held_ledger(), CUSTOMERS, later, POLICY, 100).windows.values()
    assert kept is not None
    assert (kept.held, kept.subscription) == (OUTSIDE_PERIOD, "")
    running = {"org": OrgRecord("org", periods=(Period("sub", NOON - 2 * HOUR_US),))}
    assert released(release(held_ledger(), CUSTOMERS, running, POLICY, 100))
    shifting = replace(POLICY, out_of_period_policy=OutOfPeriodPolicy.SHIFT)
    assert released(release(held_ledger(), CUSTOMERS, later, shifting, 100))
