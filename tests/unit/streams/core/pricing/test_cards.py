"""Versions of a rate card: the one in force at a call's end prices it, and one factor of the payer applies."""

from decimal import Decimal
from itertools import permutations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.customers import OrgRecord, Period
from schemas.ledger import Rated
from schemas.money import cents_text, total
from schemas.rates import FACTOR_PLACES
from schemas.rounding import MOST_COST_DECIMALS
from streams.core.metering.call_kinds import JOB, MANAGEMENT, MEDIA, UNKNOWN
from streams.core.metering.decisions import (
    BYOK,
    CACHE_HIT,
    FAILED_CALL,
    FAILED_WITH_COST,
    METERED,
    UNPRICED,
    ZERO_COST,
)
from streams.core.metering.rated_calls import rated
from streams.core.pricing.cards import Rates
from streams.core.pricing.payer import payer_factor, plan_at
from tests.support.calls import NOON
from tests.support.rate_cards import call, card, entry

D = Decimal


def test_the_version_in_force_at_the_end_prices_a_call_for_any_order_of_storing() -> None:
    cards = [card(name="a", begins=NOON - 5), card(name="b", begins=NOON), card(name="c", begins=NOON + 5)]
    for order in permutations(cards):
        rates = Rates(order)
        names = [
            one and one.id for at in (NOON - 6, NOON - 5, NOON - 1, NOON, NOON + 4, NOON + 5) if [one := rates.at(at)]
        ]
        assert names == [None, "a", "a", "b", "b", "c"]


def test_of_two_versions_with_one_start_the_later_written_one_is_in_force() -> None:
    first, second = card(name="z"), msgspec.structs.replace(card(name="a"), put_at=1)
    for order in permutations([first, second]):
        found = Rates(order).at(NOON)
        assert found is second


def test_a_call_before_the_first_version_has_no_price() -> None:
    rates = Rates([card(entry(per_request="1"), begins=NOON)])
    assert rates.price(call("1", end_us=NOON - 1)) is None
    price = rates.price(call("1"))
    assert price is not None and price.usd == 1 and price.card.id == "r1"


@pytest.mark.parametrize(
    ("decision", "kind", "job", "billed"),
    [
        (UNPRICED, "inference", b"", True),
        (ZERO_COST, "inference", b"", True),
        (ZERO_COST, "inference", b"j", False),
        (ZERO_COST, MANAGEMENT, b"", False),
        (ZERO_COST, UNKNOWN, b"", False),
        (UNPRICED, UNKNOWN, b"", False),  # it may be a read
        (ZERO_COST, JOB, b"j", False),
        (UNPRICED, MEDIA, b"", True),
        (UNPRICED, MEDIA, b"j", False),
        (FAILED_CALL, "inference", b"", False),
        (CACHE_HIT, "inference", b"", False),
        (BYOK, "inference", b"", False),
        (METERED, "inference", b"", False),
    ],
)
def test_which_calls_without_a_cost_a_price_for_requests_bills(
    decision: str, kind: str, job: bytes, *, billed: bool
) -> None:
    rates = Rates([card(entry(per_request="1"))])
    assert (rated(call(kind=kind, job=job), decision, rates) is not None) is billed


def test_tokens_of_a_call_type_that_is_not_known_are_priced() -> None:
    """It counts as inference (ADR 0016): after an upgrade of LiteLLM a model of one's own must not become free."""
    rates = Rates([card(entry(input="1", output="2"))])
    price = rated(call(kind=UNKNOWN, tokens_input=1_000_000, total_tokens=1_000_000), UNPRICED, rates)
    assert price is not None and price.usd == 1


def test_a_failed_call_that_cost_money_is_priced() -> None:
    price = rated(call("1"), FAILED_WITH_COST, Rates([card(entry(markup_percent="100"))]))
    assert price is not None and price.usd == 2


def test_one_factor_of_the_payer_applies_and_the_orgs_own_overrides_its_plans() -> None:
    created = card(plan={"pro": "0.9"}, org={"o": "0.8"})
    assert payer_factor(created, "o", "pro") == D("0.8")
    assert payer_factor(created, "p", "pro") == D("0.9")
    assert payer_factor(created, "p", "free") == 1
    assert payer_factor(card(), "o", "pro") == 1


def test_the_plan_is_that_of_the_subscription_at_the_calls_end() -> None:
    """A plan change keeps the id: the end of the call decides, not what is known when it is counted."""
    org = OrgRecord(
        "o", periods=(Period("s", 20, None, "big"), Period("s", 0, 10, "small"), Period("t", 0, None, "other"))
    )
    assert [plan_at(org, "s", at) for at in (-5, 0, 9, 10, 15, 20, 99)] == ["small"] * 3 + ["big"] * 4
    assert plan_at(org, "none", 0) == plan_at(None, "s", 0) == ""
    rates = Rates([created := card(plan={"small": "2", "big": "3"})], {"o": org})
    assert [rates.factor(created, "o", "s", at) for at in (5, 25, 5)] == [2, 3, 2]


@given(
    st.lists(st.decimals(0, 10**6, places=MOST_COST_DECIMALS, allow_nan=False), min_size=1, max_size=20),
    st.decimals(0, 1000, places=FACTOR_PLACES, allow_nan=False),
)
@example(costs=[Decimal(1).scaleb(-MOST_COST_DECIMALS)], factor=1 + Decimal(1).scaleb(-FACTOR_PLACES))
def test_a_factor_never_needs_more_than_lagos_fifteen_decimals_of_a_cent(costs: list[Decimal], factor: Decimal) -> None:
    billed = Rated("r", factor, total(costs)).billed
    assert billed == total(cost * factor for cost in costs)
    assert len(cents_text(billed).partition(".")[2]) <= 15
