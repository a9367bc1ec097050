"""The files that a history's operator writes for the product: rate cards and settings."""

from decimal import Decimal

from schemas.moments import SECOND_US
from schemas.policy import MeterPolicy, OutOfPeriodPolicy
from schemas.rates import Entry, Factors, RateCard, check_card
from tests.model import history as h


def card_of(card: h.Card, put_at: int) -> RateCard:
    """The card in the form of an operator's file."""
    names = ("input", "cached", "cache_write", "output", "reasoning")
    created = {"markup_percent": card.percent, "per_request": card.request, "minimum": card.minimum}
    created |= dict(zip(names, card.tokens, strict=True))
    entry = Entry(card.model or "*", **{name: Decimal(text) for name, text in created.items() if text is not None})
    factors = Factors({h.ECO: Decimal(card.eco)}, org={org: Decimal(factor) for org, factor in card.orgs})
    rate = RateCard(card.name, card.begins * SECOND_US, put_at, entries=(entry,), factors=factors)
    check_card(rate)
    return rate


def policy_of(step: h.Restarted) -> MeterPolicy:
    """The settings with which a worker is started."""
    return MeterPolicy(
        deployment="d",
        window_us=step.window * SECOND_US,
        group_by=step.group_by,
        cost_decimals=step.decimals,
        out_of_period_policy=OutOfPeriodPolicy(step.late),
    )
