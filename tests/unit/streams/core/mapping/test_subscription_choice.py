"""Of an org's subscriptions the one pays that charges the metric; where that is not one, nothing is guessed."""

import msgspec
import pytest

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.policy import OutOfPeriodPolicy
from streams.core.mapping.billing_periods import ENDED, NO_CHARGE
from streams.core.mapping.resolve import Resolver, resolve, resolve_org
from streams.core.mapping.subscription_choice import (
    AMBIGUOUS,
    FOREIGN_SUBSCRIPTION,
    NO_SUBSCRIPTION,
    UNKNOWN_SUBSCRIPTION,
    Choice,
    chosen,
    named,
)

USAGE, SEATS = ("ai_usage",), ("seats",)


def period(
    external_id: str, started: int = 0, ended: int | None = None, charged: tuple[str, ...] | None = USAGE
) -> Period:
    return Period(external_id, started, ended, charged=charged)


def org(*periods: Period, own: str = "") -> OrgRecord:
    return OrgRecord("org", periods=periods, subscription_id=own)


def test_the_one_that_charges_the_metric_pays_whatever_began_first() -> None:
    both = org(period("seats", charged=SEATS), period("llm", 5))
    assert chosen(both, 9, "ai_usage") == Choice("llm")
    assert chosen(both, 9, "seats") == Choice("seats")


def test_none_that_charges_it_holds() -> None:
    assert chosen(org(period("seats", charged=SEATS)), 9, "ai_usage") == Choice("", NO_CHARGE)
    assert chosen(org(), 9, "ai_usage") == chosen(None, 9, "ai_usage") == Choice("", NO_SUBSCRIPTION)


def test_of_several_the_orgs_own_pays_else_a_person_has_to_say() -> None:
    two = (period("a"), period("b", 5))
    assert chosen(org(*two, own="b"), 9, "ai_usage") == Choice("b")
    assert chosen(org(*two), 9, "ai_usage") == Choice("", AMBIGUOUS)
    assert chosen(org(*two, own="gone"), 9, "ai_usage") == Choice("", AMBIGUOUS)
    assert chosen(org(*two), 3, "ai_usage") == Choice("a")


def test_until_it_is_learnt_what_they_charge_the_first_one_pays_as_before() -> None:
    old = org(period("a", charged=None), period("b", 5, charged=None))
    assert chosen(old, 9, "ai_usage") == Choice("a")
    assert chosen(msgspec.structs.replace(old, subscription_id="b"), 9, "ai_usage") == Choice("b")


def test_outside_all_of_them_the_next_one_that_charges_it_then_the_last() -> None:
    some = org(period("seats", 0, charged=SEATS), period("first", 10, 20), period("second", 30, 40))
    assert [chosen(some, at, "ai_usage").subscription for at in (5, 15, 25, 35, 99)] == [
        *("first", "first", "second", "second", "second")
    ]


def test_what_has_ended_is_passed_over_when_it_is_to_be_billed_now() -> None:
    moved = org(period("old", 0, 20), period("new", 20))
    assert chosen(moved, 15, "ai_usage") == Choice("old")
    assert chosen(moved, 15, "ai_usage", now_us=19) == Choice("old")
    assert chosen(moved, 15, "ai_usage", now_us=20) == Choice("new")
    assert chosen(org(period("old", 0, 20)), 15, "ai_usage", now_us=20) == Choice("", ENDED)


@pytest.mark.parametrize("why", [UNKNOWN_SUBSCRIPTION, FOREIGN_SUBSCRIPTION])
def test_a_name_that_lago_does_not_know_is_no_subscription(why: str) -> None:
    told = OrgRecord("org", periods=(period("real"),), unusable={"typo": why})
    assert named(told, "typo", "ai_usage") == Choice("", why)
    assert named(told, "not_asked_yet", "ai_usage") == Choice("not_asked_yet")
    assert named(None, "typo", "ai_usage") == Choice("typo")
    learnt = msgspec.structs.replace(told, periods=(period("typo"),))
    assert named(learnt, "typo", "ai_usage") == Choice("typo")


def test_a_name_whose_plan_charges_nothing_holds_too() -> None:
    assert named(org(period("seats", charged=SEATS)), "seats", "ai_usage") == Choice("", NO_CHARGE)


def test_a_mapping_and_an_orgs_own_usage_choose_alike_each_by_its_metric() -> None:
    orgs = {"org": org(period("seats", charged=("api_calls",)), period("llm", 5))}
    mapped = {"c": CustomerRecord("c", (MappingVersion(0, "org", "t"),), 0, 0)}
    assert resolve(mapped["c"], 9, "user", orgs, "ai_usage").subscription == "llm"
    assert resolve_org("org", 9, orgs, OutOfPeriodPolicy.SHIFT, "api_calls").subscription == "seats"
    both = Resolver(mapped, orgs, OutOfPeriodPolicy.SHIFT, "ai_usage")
    assert both("c", 9, "user").subscription == "llm"
    assert both("org", 9, "org", "api_calls").subscription == "seats"
    assert both("org", 9, "org", "other").subscription == "seats", "it has no amount: a flat plan may take it"
