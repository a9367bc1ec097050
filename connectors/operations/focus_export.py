"""Exports the usage of a month as FOCUS 1.2 (https://focus.finops.org/focus-specification/v1-2/), for tools of cost
management.

There is one row for each combination of UTC day, org, provider, model, rate card version, power level and kind of key
(the user's own or not). LiteLLM reports one cost for a call and not one for each kind of token, so the kinds are
columns and not rows. The sums of the rows equal the sums of the usage log exactly.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from connectors.operations.csv_text import Exact, csv_line
from connectors.postgres.pool import connected
from schemas.errors import Rejected
from schemas.money import add, plain

COLUMNS: Final = (
    *(
        "BilledCost",
        "BillingAccountId",
        "BillingAccountName",
        "BillingCurrency",
        "BillingPeriodEnd",
        "BillingPeriodStart",
    ),
    *("ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart"),
    *("ConsumedQuantity", "ConsumedUnit", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost"),
    *(
        "PricingCategory",
        "PricingQuantity",
        "PricingUnit",
        "ProviderName",
        "PublisherName",
        "ResourceId",
        "ResourceType",
    ),
    *(
        "ServiceCategory",
        "ServiceName",
        "ServiceSubcategory",
        "SkuId",
        "SkuPriceId",
        "SubAccountId",
        "SubAccountName",
        "Tags",
    ),
    *(
        "x_Calls",
        "x_TokensInput",
        "x_TokensOutput",
        "x_CachedTokens",
        "x_ReasoningTokens",
        "x_ProviderCost",
        "x_OwnKeyCost",
    ),
)
_ROWS: Final = """
SELECT
    day, org_id, provider, model, rate, power_level, own_key, count(*) AS calls, sum(total_tokens) AS tokens,
    sum(tokens_input) AS tokens_input, sum(tokens_output) AS tokens_output, sum(cached_tokens) AS cached_tokens,
    sum(reasoning_tokens) AS reasoning_tokens, sum(billed_usd) AS billed_usd,
    sum(provider_cost_usd) AS provider_cost_usd, sum(own_key_cost_usd) AS own_key_cost_usd
FROM usage_calls WHERE ended_at >= $1::timestamp AT TIME ZONE 'UTC' AND ended_at < $2::timestamp AT TIME ZONE 'UTC'
GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7
"""
_PRUNED: Final = "SELECT EXISTS (SELECT FROM forgotten_months WHERE month = $1)"
_NAMES: Final = "SELECT org_id, name FROM organisations WHERE name <> ''"
_AHEAD: Final = 1000


@dataclass(slots=True)
class FocusTotals:
    """The totals of an export: rows, calls and dollars."""

    rows: int = 0
    calls: int = 0
    billed_usd: Decimal = field(default_factory=Decimal)
    list_usd: Decimal = field(default_factory=Decimal)

    def as_object(self) -> dict[str, Any]:
        """Return the totals as an object for JSON, with decimals as text."""
        amounts = {"billed_usd": plain(self.billed_usd), "list_usd": plain(self.list_usd)}
        return {"rows": self.rows, "calls": self.calls, **amounts}


async def export_focus(url: str, month: date, issuer: str, write: Callable[[str], object]) -> FocusTotals:
    """Write the month as CSV, line by line.

    Args:
        month: its first day.
        issuer: the company that bills, for `InvoiceIssuerName` and `BillingAccountId`.

    Raises:
        Rejected: `usage_pruned`: the calls of the month were deleted.
        Unavailable: Postgres does not answer.
    """
    totals = FocusTotals()
    write(csv_line(COLUMNS))
    async for row in focus_rows(url, month, issuer):
        write(csv_line(row[name] for name in COLUMNS))
        totals.rows += 1
        totals.calls += row["x_Calls"]
        totals.billed_usd = add(totals.billed_usd, Decimal(str(row["BilledCost"])))
        totals.list_usd = add(totals.list_usd, Decimal(str(row["ListCost"])))
    return totals


async def focus_rows(url: str, month: date, issuer: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the rows of the month by column, in the order of days, orgs and models. Raises: as `export_focus`."""
    following = (month + timedelta(days=31)).replace(day=1)
    async with connected(url) as connection:
        if await connection.fetchval(_PRUNED, month):
            raise Rejected("usage_pruned", f"the calls of {month:%Y-%m} were deleted by `meterbridge db prune`")
        names = dict(await connection.fetch(_NAMES))
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            async for found in connection.cursor(_ROWS, month, following, prefetch=_AHEAD):
                yield _row(found, month, following, issuer, names)


def _row(found: Any, month: date, following: date, issuer: str, names: Mapping[str, str]) -> dict[str, Any]:
    day: date = found["day"]
    billed, own = found["billed_usd"], found["own_key_cost_usd"]
    cost = Exact(plain(billed))
    tags = {"power_level": found["power_level"], "own_key": "true" if found["own_key"] else ""}
    provider, model, tokens = found["provider"] or "unknown", found["model"] or "unknown", Exact(found["tokens"])
    return {
        "BilledCost": cost,
        "BillingAccountId": issuer,
        "BillingAccountName": issuer,
        "BillingCurrency": "USD",
        "BillingPeriodEnd": _moment(following),
        "BillingPeriodStart": _moment(month),
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeDescription": f"{model} of {provider}, on the user's own key or subscription"
        if found["own_key"]
        else f"{model} of {provider}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": _moment(day + timedelta(days=1)),
        "ChargePeriodStart": _moment(day),
        "ConsumedQuantity": tokens,
        "ConsumedUnit": "Tokens",
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "InvoiceIssuerName": issuer,
        "ListCost": Exact(plain(found["provider_cost_usd"] + own)),
        "PricingCategory": "Standard",
        "PricingQuantity": tokens,
        "PricingUnit": "Tokens",
        "ProviderName": provider,
        "PublisherName": provider,
        "ResourceId": model,
        "ResourceType": "Model",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": f"{provider} models",
        "ServiceSubcategory": "Generative AI",
        "SkuId": f"{provider}/{model}",
        "SkuPriceId": found["rate"] or "litellm",
        "SubAccountId": found["org_id"] or None,
        "SubAccountName": names.get(found["org_id"]),
        "Tags": msgspec.json.encode({name: text for name, text in tags.items() if text}).decode(),
        "x_Calls": found["calls"],
        "x_TokensInput": Exact(found["tokens_input"]),
        "x_TokensOutput": Exact(found["tokens_output"]),
        "x_CachedTokens": Exact(found["cached_tokens"]),
        "x_ReasoningTokens": Exact(found["reasoning_tokens"]),
        "x_ProviderCost": Exact(plain(found["provider_cost_usd"])),
        "x_OwnKeyCost": Exact(plain(own)),
    }


def _moment(day: date) -> str:
    """Format a timestamp as FOCUS requires it: ISO 8601 in UTC."""
    return f"{datetime(day.year, day.month, day.day):%Y-%m-%dT%H:%M:%SZ}"  # noqa: DTZ001  # UTC by its text
