"""Of an org's subscriptions the one that charges the metric pays; if that is not exactly one, nothing is guessed."""

import msgspec
import pytest

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.policy import OutOfPeriodPolicy
from streams.core.mapping.held_reasons import (
    AMBIGUOUS,
    ENDED,
    FOREIGN_SUBSCRIPTION,
    NO_CHARGE,
    NO_SUBSCRIPTION,
    UNKNOWN_SUBSCRIPTION,
)
from streams.core.mapping.resolve import Resolver, resolve, resolve_org
from streams.core.mapping.subscription_choice import Choice, chosen, named

USAGE, SEATS = ("ai_usage",), ("seats",)


def period(
    external_id: str, started: int = 0, ended: int | None = None, charged: tuple[str, ...] | None = USAGE
) -> Period:
    return Period(external_id, started, ended, charged=charged)


def org(*periods: Period, own: str = "") -> OrgRecord:
    return OrgRecord("org", periods=periods, subscription_id=own)


def test_the_subscription_that_charges_the_metric_pays_for_any_order_of_starts() -> None:
    both = org(period("seats", charged=SEATS), period("llm", 5))
    assert chosen(both, 9, "ai_usage") == Choice("llm")
    assert chosen(both, 9, "seats") == Choice("seats")


def test_if_no_subscription_charges_the_metric_usage_is_held() -> None:
    assert chosen(org(period("seats", charged=SEATS)), 9, "ai_usage") == Choice("", NO_CHARGE)
    assert chosen(org(), 9, "ai_usage") == chosen(None, 9, "ai_usage") == Choice("", NO_SUBSCRIPTION)


def test_of_several_the_orgs_own_subscription_pays_or_a_person_must_decide() -> None:
    two = (period("a"), period("b", 5))
    assert chosen(org(*two, own="b"), 9, "ai_usage") == Choice("b")
    assert chosen(org(*two), 9, "ai_usage") == Choice("", AMBIGUOUS)
    assert chosen(org(*two, own="gone"), 9, "ai_usage") == Choice("", AMBIGUOUS)
    assert chosen(org(*two), 3, "ai_usage") == Choice("a")


def test_until_their_charges_are_known_the_first_subscription_pays() -> None:
    old = org(period("a", charged=None), period("b", 5, charged=None))
    assert chosen(old, 9, "ai_usage") == Choice("a")
    assert chosen(msgspec.structs.replace(old, subscription_id="b"), 9, "ai_usage") == Choice("b")


def test_outside_all_periods_the_next_subscription_that_charges_it_is_named_or_the_last() -> None:
    some = org(period("seats", 0, charged=SEATS), period("first", 10, 20), period("second", 30, 40))
    assert [chosen(some, at, "ai_usage").subscription for at in (5, 15, 25, 35, 99)] == [
        *("first", "first", "second", "second", "second")
    ]


def test_for_usage_billed_now_ended_subscriptions_are_ignored() -> None:
    moved = org(period("old", 0, 20), period("new", 20))
    assert chosen(moved, 15, "ai_usage") == Choice("old")
    assert chosen(moved, 15, "ai_usage", now_us=19) == Choice("old")
    assert chosen(moved, 15, "ai_usage", now_us=20) == Choice("new")
    assert chosen(org(period("old", 0, 20)), 15, "ai_usage", now_us=20) == Choice("", ENDED)


@pytest.mark.parametrize("why", [UNKNOWN_SUBSCRIPTION, FOREIGN_SUBSCRIPTION])
def test_a_name_that_lago_does_not_know_is_no_subscription(why: str) -> None:
    result = OrgRecord("org", periods=(period("real"),), unusable={"typo": why})
    assert named(result, "typo", "ai_usage") == Choice("", why)
    assert named(result, "not_asked_yet", "ai_usage") == Choice("not_asked_yet")
    assert named(None, "typo", "ai_usage") == Choice("typo")
    learnt = msgspec.structs.replace(result, periods=(period("typo"),))
    assert named(learnt, "typo", "ai_usage") == Choice("typo")


def test_a_named_subscription_whose_plan_charges_nothing_holds_usage_too() -> None:
    assert named(org(period("seats", charged=SEATS)), "seats", "ai_usage") == Choice("", NO_CHARGE)


def test_a_mapping_and_an_orgs_own_usage_choose_by_the_same_rule_for_their_metric() -> None:
    orgs = {"org": org(period("seats", charged=("api_calls",)), period("llm", 5))}
    mapped = {"c": CustomerRecord("c", (MappingVersion(0, "org", "t"),), 0, 0)}
    assert resolve(mapped["c"], 9, "user", orgs, "ai_usage").subscription == "llm"
    assert resolve_org("org", 9, orgs, OutOfPeriodPolicy.SHIFT, "api_calls").subscription == "seats"
    both = Resolver(mapped, orgs, OutOfPeriodPolicy.SHIFT, "ai_usage")
    assert both("c", 9, "user").subscription == "llm"
    assert both("org", 9, "org", "api_calls").subscription == "seats"
    assert both("org", 9, "org", "other").subscription == "seats", "it has no amount: a flat plan may take it"
