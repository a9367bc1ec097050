"""What Lago invoices a subscription by, and what its plan charges: learnt with its periods.

A plan that was changed for one subscription alone (a licence's plan overrides) is read as the plan of that code.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
import structlog

from connectors.lago.response_types import Customer, Plan, Subscription, period_of
from connectors.lago.transport import read
from schemas.customers import Period
from schemas.moments import parse_us
from streams.core.mapping.billing_periods import zone_of

#: A plan is asked for again after this long, seconds.
_FRESH_S: Final = 60.0
_UTC: Final = ("", "UTC", "Etc/UTC")
_NEVER: Final[tuple[float, None]] = (float("-inf"), None)

_log = structlog.get_logger(__name__)
copy = msgspec.structs.replace


class PlanSource(Protocol):
    """Lago's plans; see `LagoClient`."""

    async def plan(self, code: str) -> Plan | None: ...


class PlanTerms(NamedTuple):
    """Of a plan: how often its charges are invoiced, and which metrics it charges."""

    interval: str
    charged: tuple[str, ...]


def terms_of(plan: Plan) -> PlanTerms:
    """Charges of a long interval may be invoiced monthly (`bill_charges_monthly`)."""
    codes = sorted({charge.billable_metric_code for charge in plan.charges})
    return PlanTerms("monthly" if plan.bill_charges_monthly else plan.interval, tuple(codes))


class PlanTermsCache:
    """The terms of plans, each remembered for a minute: many orgs have the same."""

    def __init__(self, lago: PlanSource, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lago = lago
        self._monotonic = monotonic
        self._known: dict[str, tuple[float, PlanTerms]] = {}

    def learn(self, plans: Iterable[Plan]) -> Mapping[str, PlanTerms]:
        """The terms of plans that were listed just now, by their codes."""
        found = {plan.code: terms_of(plan) for plan in plans}
        self._known.update((code, (self._monotonic(), terms)) for code, terms in found.items())
        return found

    async def periods(self, listed: Sequence[Subscription], customer: Customer | None) -> list[Period]:
        """Those that have begun, with their terms where Lago has the plan. Raises: LagoIntegrationError."""
        timezone = timezone_of(customer)
        begun = [one for one in listed if one.started_at is not None]
        return [period_with(one, await self._terms(one.plan_code or ""), timezone) for one in begun]

    async def _terms(self, code: str) -> PlanTerms | None:
        asked_at, terms = self._known.get(code, _NEVER)
        if code and self._monotonic() - asked_at > _FRESH_S:
            plan = await self._lago.plan(code)
            if plan is None:  # it may be made at any moment, and usage of a period without terms goes astray
                return None
            terms = terms_of(plan)
            self._known[code] = self._monotonic(), terms
        return terms


def period_with(found: Subscription, terms: PlanTerms | None, timezone: str = "") -> Period:
    """A subscription that has begun, with its terms; without, where they are not known."""
    bare = read(period_of, found)
    if terms is None:
        return bare
    anchor = None
    if found.billing_time == "anniversary":
        anchor = bare.started_at if found.subscription_at is None else read(parse_us, found.subscription_at)
    return copy(bare, interval=terms.interval, anchor=anchor, timezone=timezone, charged=terms.charged)


def kept(found: Period, known: Period) -> Period:
    """`found`, with the terms that are known where it tells none."""
    if found.charged is not None or known.charged is None:
        return found
    terms = {"interval": known.interval, "anchor": known.anchor, "timezone": known.timezone, "charged": known.charged}
    return copy(found, **terms)


def timezone_of(customer: Customer | None) -> str:
    """Whose midnights begin the customer's billing periods; `""` is UTC, as without a licence."""
    name = "" if customer is None else (customer.timezone or customer.applicable_timezone or "")
    if name in _UTC:
        return ""
    if zone_of(name) is zone_of(""):
        _log.warning("timezone_unknown", timezone=name)
        return ""
    return name
