"""Compares the costs in the usage log with LiteLLM's price list (`model_prices_and_context_window.json`), a file that
the operator passes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from connectors.operations.logged_usage import logged_calls
from connectors.postgres.pool import Database
from schemas.money import EXACT, ZERO, add
from schemas.normalised_call import Usage
from schemas.rounding import quantise, quantum
from streams.core.metering.decisions import BILLED

#: The members of the list that hold the price of one token, in dollars.
_INPUT, _OUTPUT = "input_cost_per_token", "output_cost_per_token"
_CACHED, _WRITTEN = "cache_read_input_token_cost", "cache_creation_input_token_cost"
_REASONING = "output_cost_per_reasoning_token"
_NAMES: Final = (_INPUT, _OUTPUT, _CACHED, _WRITTEN, _REASONING)
#: Parts of the names of members that make a price depend on more than the token counts.
_OTHERWISE: Final = (
    "_above_",
    "_per_second",
    "_per_image",
    "_per_character",
    "_per_query",
    "_per_pixel",
    "per_session",
)
_MOST: Final = 1000
#: The next step after an unreadable file.
_EXPECTED: Final = "pass LiteLLM's model_prices_and_context_window.json, in UTF-8"
_UNIT = quantum()


class InvalidPriceList(ValueError):
    """The file is no price list; the message says why, where, and what to do."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A call whose cost differs from the list, in dollars."""

    call: str
    customer: str
    model: str
    cost: Decimal
    listed: Decimal
    ended_at: datetime


@dataclass(slots=True)
class PriceComparison:
    """The result: the number of compared calls, and at most 1000 calls whose cost differs.

    Fields:
        unlisted: number of calls of models that are not in the list, by model.
        skipped: number of calls whose price depends on more than tokens.
    """

    calls: int = 0
    skipped: int = 0
    unlisted: dict[str, int] = field(default_factory=dict)
    differs: list[Difference] = field(default_factory=list)


def read_prices(path: Path) -> dict[str, dict[str, Any]]:
    """Read the list by model, with its numbers as exact Decimals. Raises: InvalidPriceList, OSError."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal, parse_int=Decimal)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InvalidPriceList(f"{path}, {place}: the JSON is invalid; {_EXPECTED}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidPriceList(f"{path}: the file cannot be read ({type(error).__name__}); {_EXPECTED}") from error
    if not isinstance(tree, dict):
        raise InvalidPriceList(f"{path}: the file must be a JSON object by model; {_EXPECTED}")
    return {name: model for name, model in tree.items() if isinstance(model, dict)}


async def compared_with(
    database: Database, prices: Mapping[str, Mapping[str, Any]], since_us: int, until_us: int, bound: Decimal
) -> PriceComparison:
    """Compare the billed calls that ended in `[since_us, until_us)`.

    Args:
        bound: the accepted difference, as a fraction of the listed price.

    Raises:
        Unavailable: Postgres does not answer.
    """
    found = PriceComparison()
    async for call in logged_calls(database, since_us, until_us):
        usage = call.usage
        if call.decision not in BILLED:
            continue
        model = listed_as(prices, usage)
        if model is None:
            found.unlisted[usage.model] = found.unlisted.get(usage.model, 0) + 1
            continue
        listed = listed_price(model, usage)
        if listed is None:
            found.skipped += 1
            continue
        found.calls += 1
        apart = abs(add(usage.cost, -listed))
        if apart > max(EXACT.multiply(listed, bound), _UNIT) and len(found.differs) < _MOST:
            name = usage.request_id or usage.call_id
            found.differs.append(Difference(name, usage.customer_id, usage.model, usage.cost, listed, call.ended_at))
    return found


def listed_as(prices: Mapping[str, Mapping[str, Any]], usage: Usage) -> Mapping[str, Any] | None:
    """Find the entry of the list: by the model's name, by provider and name, or by the name without its provider."""
    bare = usage.model.partition("/")[2]
    for name in (usage.model, f"{usage.provider}/{usage.model}", bare):
        if name and name in prices:
            return prices[name]
    return None


def listed_price(model: Mapping[str, Any], usage: Usage) -> Decimal | None:
    """Compute the price of the call's tokens in dollars; None if the list prices something else or has tiers by token
    count.
    """
    if any(part in name and value for name, value in model.items() for part in _OTHERWISE):
        return None
    price = {name: model[name] for name in _NAMES if isinstance(model.get(name), Decimal)}
    if _INPUT not in price:
        return None
    cached = min(usage.cached_tokens, usage.tokens_input)
    written = min(usage.cache_write_tokens, usage.tokens_input - cached)
    reasoning = min(usage.reasoning_tokens, usage.tokens_output)
    output = price.get(_OUTPUT, ZERO)
    parts = (
        (price[_INPUT], usage.tokens_input - cached - written),
        (price.get(_CACHED, price[_INPUT]), cached),
        (price.get(_WRITTEN, price[_INPUT]), written),
        (output, usage.tokens_output - reasoning),
        (price.get(_REASONING, output), reasoning),
    )
    usd = ZERO
    for each, count in parts:
        usd = add(usd, EXACT.multiply(each, count))
    return quantise(usd, _UNIT)
