"""Lago reads the cents of an event in the currency of the subscription's plan. So usage in dollars never goes to a plan in another
currency, whatever the currency of the customer is.
"""

import msgspec
import pytest

from connectors.billing.plan_terms import period_with, terms_of
from connectors.lago.responses import Charge, Plan, Subscription
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.moments import parse_us, to_iso
from schemas.policy import OutOfPeriodPolicy
from schemas.records import LagoEvent
from streams.core.delivery.after_end import instead_of
from streams.core.delivery.restamp import restamp_decision
from streams.core.mapping.billing_periods import billed
from streams.core.mapping.held_reasons import WRONG_CURRENCY
from streams.core.mapping.resolve import Target, resolve, resolve_org
from streams.core.mapping.subscription_choice import Choice, chosen, named

USAGE = ("ai_usage",)
BEGUN = parse_us("2026-11-01T00:00:00Z")
NOW = parse_us("2026-11-20T12:00:00Z")
EURO = Period("euro", BEGUN, interval="monthly", charged=USAGE, currency="EUR")
DOLLAR = Period("dollar", BEGUN, interval="monthly", charged=USAGE)


def org(*periods: Period, own: str = "") -> OrgRecord:
    return OrgRecord("org", currency="USD", periods=periods, subscription_id=own)


@pytest.mark.parametrize("now_us", [None, NOW])
def test_usage_of_an_org_in_dollars_is_held_if_its_only_plan_is_in_another_currency(now_us: int | None) -> None:
    assert chosen(org(EURO), NOW, "ai_usage", now_us) == Choice("", WRONG_CURRENCY)
    assert named(org(EURO), "euro", "ai_usage", now_us) == Choice("", WRONG_CURRENCY)
    record = CustomerRecord("c", (MappingVersion(0, "org", "t"),), 0, 0)
    assert resolve(record, NOW, "user", {"org": org(EURO)}, "ai_usage", now_us) == Target("org", "", WRONG_CURRENCY)


def test_of_two_subscriptions_the_one_in_dollars_pays_without_a_persons_decision() -> None:
    assert chosen(org(EURO, DOLLAR, own="euro"), NOW, "ai_usage") == Choice("dollar")


def test_usage_without_an_amount_goes_to_a_plan_in_any_currency() -> None:
    assert chosen(org(EURO), NOW, "ai_usage", owed=False) == Choice("euro")
    target = resolve_org("org", NOW, {"org": org(EURO)}, OutOfPeriodPolicy.SHIFT, "ai_usage", NOW)
    assert target == Target("org", "euro")


def test_a_change_to_a_plan_in_another_currency_stops_what_is_not_sealed_and_what_is_not_posted() -> None:
    before = Period("sub", BEGUN, NOW - 1, interval="monthly", charged=USAGE)
    after = Period("sub", NOW - 1, interval="monthly", charged=USAGE, currency="EUR")
    assert billed((before, after), "sub", NOW - 2, NOW - 2, "ai_usage").at_us == NOW - 2
    assert billed((after,), "sub", NOW, NOW, "ai_usage").held == WRONG_CURRENCY
    assert billed((after,), "sub", NOW, NOW, "ai_usage", owed=False).held == ""
    event = LagoEvent("t", "sub", "ai_usage", f"{NOW // 1_000_000}.000", "100", {"org_id": "org"})
    decision = restamp_decision(
        msgspec.json.encode(event), {"org": org(after)}, OutOfPeriodPolicy.SHIFT, NOW, "ai_usage"
    )
    assert decision.refused == WRONG_CURRENCY
    decision = restamp_decision(
        msgspec.json.encode(event), {"org": org(after, DOLLAR)}, OutOfPeriodPolicy.SHIFT, NOW, "ai_usage"
    )
    assert (decision.refused, decision.subscription) == ("", "dollar")
    assert instead_of(event, org(after), NOW, "ai_usage") is None
    assert instead_of(event, org(after, DOLLAR), NOW, "ai_usage") is not None


PLAN = Plan("p", "EUR", (Charge("ai_usage", "dynamic"),), interval="monthly")


def test_the_record_has_the_currency_of_a_plan_that_reads_our_cents() -> None:
    running = Subscription("sub", to_iso(BEGUN), plan_code="p", external_customer_id="org", status="active")
    assert period_with(running, terms_of(PLAN)).currency == "EUR"
    for other in (
        Plan("p", "USD", PLAN.charges, interval="monthly"),
        Plan("p", "EUR", (Charge("ai_usage", "standard"),), interval="monthly"),
    ):
        assert period_with(running, terms_of(other)).currency == ""
