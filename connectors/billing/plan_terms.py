"""Reads the terms of a subscription: how often Lago invoices it, and which metrics its plan charges.

If a plan was changed for one subscription (plan overrides, which need a licence), the terms of the original plan are
used.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import structlog

from connectors.billing.answer_cache import Cache
from connectors.lago.client import LagoClient
from connectors.lago.responses import Customer, Plan, Subscription, period_of
from connectors.lago.transport import read
from schemas.customers import Period
from schemas.moments import parse_us
from streams.core.mapping.billing_periods import zone_of
from streams.core.mapping.resolve import CURRENCY

#: How long the terms of a plan are cached, seconds. The absence of a plan is not cached. The plan may be created at any
#: moment, and usage of a period without terms would be billed wrongly.
_FRESH_S: Final = 60.0
_UTC: Final = ("", "UTC", "Etc/UTC")
_MOST: Final = 10_000
#: The only charge model that reads the cents of an event (docs/lago-behaviour.md, 1.3).
_DYNAMIC: Final = "dynamic"

_log = structlog.get_logger(__name__)
copy = msgspec.structs.replace


class PlanTerms(NamedTuple):
    """How often Lago invoices a plan's charges, and the codes of the metrics that the plan charges.

    `currency`: see `Period`.
    """

    interval: str
    charged: tuple[str, ...]
    currency: str = ""


def terms_of(plan: Plan) -> PlanTerms:
    """Return the terms of a plan. A plan with a long interval may invoice its charges monthly (`bill_charges_monthly`)."""
    codes = sorted({charge.billable_metric_code for charge in plan.charges})
    reads_cents = any(charge.charge_model == _DYNAMIC for charge in plan.charges)
    currency = plan.amount_currency if reads_cents and plan.amount_currency != CURRENCY else ""
    return PlanTerms("monthly" if plan.bill_charges_monthly else plan.interval, tuple(codes), currency)


class PlanTermsCache:
    """Caches the terms of plans for a minute, because many orgs have the same plan."""

    def __init__(self, lago: LagoClient, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lago = lago
        self._known: Cache[str, PlanTerms] = Cache(monotonic, _FRESH_S, _MOST)

    def learn(self, plans: Iterable[Plan]) -> Mapping[str, PlanTerms]:
        """Cache the terms of plans that Lago has just listed, and return them by plan code."""
        terms_by_code = {plan.code: terms_of(plan) for plan in plans}
        for code, terms in terms_by_code.items():
            self._known.keep(code, terms)
        return terms_by_code

    async def periods(self, listed: Sequence[Subscription], customer: Customer | None) -> list[Period]:
        """Return the periods of the subscriptions that have begun, with their terms if Lago has the plan.

        Raises:
            LagoIntegrationError: Lago does not answer.
        """
        timezone = timezone_of(customer)
        begun = [subscription for subscription in listed if subscription.started_at is not None]
        return [
            period_with(subscription, await self._terms(subscription.plan_code or ""), timezone)
            for subscription in begun
        ]

    async def _terms(self, code: str) -> PlanTerms | None:
        async def ask() -> PlanTerms | None:
            plan = await self._lago.plan(code)
            return None if plan is None else terms_of(plan)

        return await self._known.get(code, ask) if code else None


def period_with(subscription: Subscription, terms: PlanTerms | None, timezone: str = "") -> Period:
    """Return the period of a subscription that has begun.

    Args:
        terms: None = not known; then the period has no terms.
        timezone: IANA name; `""` = UTC.
    """
    bare = read(period_of, subscription)
    if terms is None:
        return bare
    anchor = None
    if subscription.billing_time == "anniversary":
        anchor = (
            bare.started_at if subscription.subscription_at is None else read(parse_us, subscription.subscription_at)
        )
    of_plan = {"interval": terms.interval, "charged": terms.charged, "currency": terms.currency}
    return copy(bare, anchor=anchor, timezone=timezone, **of_plan)


def kept(period: Period, known: Period) -> Period:
    """Return `period`, with the terms of `known` if it has no terms."""
    if period.charged is not None or known.charged is None:
        return period
    terms = {"interval": known.interval, "anchor": known.anchor, "timezone": known.timezone, "charged": known.charged}
    return copy(period, currency=known.currency, **terms)


def timezone_of(customer: Customer | None) -> str:
    """Return the time zone in which the customer's billing periods begin at midnight; `""` = UTC, which Lago uses
    without a licence.
    """
    name = "" if customer is None else (customer.timezone or customer.applicable_timezone or "")
    if name in _UTC:
        return ""
    if zone_of(name) is zone_of(""):
        _log.warning("timezone_unknown", timezone=name)
        return ""
    return name
