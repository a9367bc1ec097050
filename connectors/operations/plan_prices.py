"""Finds subscriptions whose plan prices the usage itself: Lago then ignores the cents in the events.

Prepaid orgs are on such a plan, with the price 0 (docs/credits.md), and plans with prices by volume are (docs/rates.md).
What Lago counts on them is no sum of what was delivered, so the two cannot be compared.
"""

from decimal import Decimal
from typing import Any, Final

from connectors.lago.client import LagoClient
from connectors.lago.errors import LagoRejected
from connectors.lago.responses import Plan
from connectors.operations.invoice_status import SubscriptionComparison
from connectors.postgres.pool import Database
from schemas.money import ZERO, plain
from streams.core.metering.reconciliation import HALF_A_CENT, LagoUsage

_DYNAMIC: Final = "dynamic"
#: The members of a charge's properties that are a price, of all charge models; `rate` is a percentage.
_PRICES: Final = frozenset({"amount", "flat_amount", "per_unit_amount", "fixed_amount", "rate"})
#: Selects whether there is any prepaid account, and what the org's account has paid for calls since a moment, dollars.
_PAID: Final = """
SELECT EXISTS (SELECT FROM user_credits), COALESCE((
    SELECT -sum(amount) FROM credit_transactions
    WHERE account = 'org:' || $1::text AND created_at >= to_timestamp($2 / 1000000.0) AND idempotency_key LIKE 'call:%'
), 0)
"""


class PlanPrices:
    """The charge models of plans; each plan is read from Lago once."""

    def __init__(self, database: Database, lago: LagoClient, code: str) -> None:
        self._database = database
        self._lago = lago
        self._code = code
        self._models: dict[str, str] = {}
        self._free: dict[str, bool] = {}

    async def own_price(self, plan_code: str | None) -> str:
        """Return by which charge models the plan prices the metric itself; `""` = by the cents of the events, or the plan
        is not known.

        Raises:
            LagoIntegrationError
        """
        name = plan_code or ""
        if name not in self._models:
            plan = await self._plan(name)
            charges = [one for one in (() if plan is None else plan.charges) if one.billable_metric_code == self._code]
            models = sorted({one.charge_model for one in charges})
            self._models[name] = "" if _DYNAMIC in models else " and ".join(models)
            self._free[name] = not any(_has_price((one.properties, one.filters)) for one in charges)
        return self._models[name]

    async def is_free(self, plan_code: str | None) -> bool:
        """Return whether no price of the metric in the plan is above 0. Otherwise Lago bills 0 only while the usage is within a
        free tier or package, or rounds to nothing.

        Raises:
            LagoIntegrationError
        """
        await self.own_price(plan_code)
        return self._free[plan_code or ""]

    async def _plan(self, name: str) -> Plan | None:
        """Return the plan; None = it is not known, or Lago cannot be asked for a plan with such a code."""
        try:
            return await self._lago.plan(name) if name else None
        except LagoRejected:
            return None

    async def looked_at(
        self, usage: LagoUsage, delivered: Decimal, models: str, org_id: str, *, free: bool = True
    ) -> SubscriptionComparison:
        """Return the result for a running subscription with own prices.

        Nobody pays for its usage if Lago bills nothing for it and there are no prepaid accounts: a complaint, unless Lago has
        the events and the plan has a price: then they are within its free tier. An org pays twice if it pays by credits, too:
        a note, because an invoice may still be reduced by a coupon.

        Args:
            delivered: cents that were delivered in the running period.
            models, free: see `own_price` and `is_free`.
        """
        if not delivered:
            return SubscriptionComparison(complete=False)
        async with self._database.connection() as connection:
            some_prepaid, paid_usd = await connection.fetchrow(_PAID, org_id, usage.from_us)
        sentence = (
            f"subscription {usage.subscription}: its plan prices the usage itself ({models}), Lago counts "
            f"{plain(usage.cents)} cents for events of {plain(delivered)} cents"
        )
        if usage.cents < HALF_A_CENT and not some_prepaid and (free or not usage.has_events):
            return SubscriptionComparison(f"{sentence}, and nobody pays by credits")
        if usage.cents >= HALF_A_CENT and paid_usd > ZERO:
            sentence += f", and the credits of {org_id} have paid {plain(paid_usd)} USD besides: docs/credits.md"
        return SubscriptionComparison(note=sentence, complete=False)

    async def paid_besides(self, usage: LagoUsage, org_id: str) -> str:
        """Return a sentence if Lago bills usage for which the org's credits have paid in the running period, too."""
        if usage.cents < HALF_A_CENT:
            return ""
        async with self._database.connection() as connection:
            _, paid_usd = await connection.fetchrow(_PAID, org_id, usage.from_us)
        if paid_usd <= ZERO:
            return ""
        return (
            f"subscription {usage.subscription}: Lago bills {plain(usage.cents)} cents of usage, and the credits of {org_id} "
            f"have paid {plain(paid_usd)} USD for calls in the same time: the org may pay twice, see docs/credits.md"
        )


def _has_price(properties: Any) -> bool:
    """Return whether a price in the properties of a charge, a text or a number, is above 0."""
    if isinstance(properties, dict):
        return any(
            (name in _PRICES and str(value).strip("0.") != "") or _has_price(value)
            for name, value in properties.items()
            if value is not None
        )
    return isinstance(properties, list | tuple) and any(map(_has_price, properties))
