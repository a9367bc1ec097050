"""Versions of the rate card, and calls to price, made for tests."""

from decimal import Decimal
from typing import Any

from schemas.normalised_call import Usage
from schemas.rates import Entry, Factors, RateCard
from schemas.rounding import quantum
from streams.core.pricing.price import entry_of, priced_by, tariff_of
from tests.support.calls import NOON


def card(*entries: Entry, name: str = "r1", begins: int = 0, default: Entry | None = None, **factors: Any) -> RateCard:
    """Return a version; factors by kind, `plan={"pro": "0.9"}`."""
    created = {kind: {each: Decimal(factor) for each, factor in by.items()} for kind, by in factors.items()}
    return RateCard(name, begins, entries=entries, default=default, factors=Factors(**created) if created else None)


def entry(model: str = "*", provider: str = "*", **prices: str) -> Entry:
    """Return an entry; prices as text."""
    return Entry(model, provider, **{name: Decimal(price) for name, price in prices.items()})


def call(cost: str = "0", **fields: Any) -> Usage:
    """Return a call that ended at noon; without tokens unless `fields` has some."""
    counts = {name: fields.pop(name, 0) for name in ("tokens_input", "tokens_output", "total_tokens")}
    details = {name: fields.pop(name, 0) for name in ("cached_tokens", "reasoning_tokens")}
    model, provider = fields.pop("model", "openai/gpt-4o"), fields.pop("provider", "openai")
    who = (b"i" * 16, "acme", "end_user", "success", NOON, fields.pop("end_us", NOON), model, provider)
    return Usage(*who, **counts, **details, cost=Decimal(cost), **fields)


def price_of(card: RateCard, call: Usage, unit: Decimal = quantum()) -> Decimal:  # noqa: B008  # a constant
    """Return the price of a call by a version, as the meter computes it."""
    return priced_by(tariff_of(entry_of(card, call.model, call.provider)), card.factors, call, unit)
