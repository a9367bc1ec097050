"""The demo's client of Lago: creates a metric, a plan and orgs with subscriptions, and reads what was billed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import httpx

from connectors.demo.sample_orgs import Org
from schemas.errors import Rejected, Unavailable
from schemas.ledger import Sum
from schemas.money import EXACT, add

METRIC, PLAN = "ai_usage", "meterbridge-demo"
_CENTS: Final = Decimal(100)
_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class BilledTotal:
    """The amounts that Lago has billed so far.

    Fields:
        subscriptions: calls and dollars by external subscription id.
        events: number of events.
        posts: number of requests with events; None = Lago does not show it.
    """

    subscriptions: dict[str, Sum] = field(default_factory=dict)
    events: int = 0
    posts: int | None = None


class DemoLago:
    """Lago, or the sandbox, through its API.

    Args:
        http: has Lago's address and the API key.
    """

    def __init__(self, http: httpx.AsyncClient, *, sandbox: bool) -> None:
        self._http = http
        self._sandbox = sandbox

    async def prepare(self, orgs: Sequence[Org]) -> None:
        """Create a plan with a dynamic charge, which bills the amounts in the events, and a subscription for each org.

        Raises:
            Rejected, Unavailable: Lago refuses, or does not answer.
        """
        usage = {"name": "AI usage", "code": METRIC, "aggregation_type": "sum_agg", "field_name": "unit"}
        metric = await self._save("billable_metrics", "billable_metric", usage)
        charge = {"billable_metric_id": metric["lago_id"], "charge_model": "dynamic"}
        money = {"amount_cents": 0, "amount_currency": "USD", "pay_in_advance": False}
        plan = {"name": "Meterbridge demo", "code": PLAN, "interval": "monthly", **money, "charges": [charge]}
        await self._save("plans", "plan", plan)
        for org in orgs:
            customer = {"external_id": org.id, "name": org.name, "currency": "USD"}
            await self._save("customers", "customer", customer)
            subscription = {"external_customer_id": org.id, "external_id": org.subscription, "plan_code": PLAN}
            await self._save("subscriptions", "subscription", subscription)

    async def bill(self, orgs: Sequence[Org]) -> BilledTotal:
        """Return what Lago has billed the orgs so far. Raises: Rejected, Unavailable."""
        if self._sandbox:
            return _bill_of(await self._request("GET", "/__stats"))
        events = [event for org in orgs for event in await self._events(org)]
        sums: dict[str, Sum] = {}
        for event in events:
            known = sums.get(event["external_subscription_id"], Sum())
            calls = known.calls + int(event["properties"]["requests"])
            sums[event["external_subscription_id"]] = Sum(
                calls, add(known.cost, _dollars(event["precise_total_amount_cents"]))
            )
        return BilledTotal(sums, len(events))

    async def _events(self, org: Org) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        page: int | None = 1
        while page is not None:
            query = {"external_subscription_id": org.subscription, "per_page": _PAGE, "page": page}
            answer = await self._request("GET", "/api/v1/events", params=query)
            events += answer["events"]
            page = answer["meta"]["next_page"]
        return events

    async def _save(self, path: str, root: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Create the object, or read the existing one with its code."""
        try:
            answer = await self._request("POST", f"/api/v1/{path}", json={root: fields})
        except Rejected as refusal:
            if "value_already_exist" not in refusal.detail or "code" not in fields:
                raise
            answer = await self._request("GET", f"/api/v1/{path}/{fields['code']}")
        saved: dict[str, Any] = answer[root]
        return saved

    async def _request(self, verb: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            answer = await self._http.request(verb, path, **options)
        except httpx.RequestError as error:
            raise Unavailable("lago_unavailable", f"{verb} {path}: {type(error).__name__}") from error
        if answer.is_success:
            body: dict[str, Any] = answer.json()
            return body
        kind = Unavailable if answer.is_server_error else Rejected
        raise kind("lago_refused", f"{verb} {path}: {answer.status_code} {answer.text[:300]}")


def _bill_of(stats: dict[str, Any]) -> BilledTotal:
    """Return the sandbox's own sums; `billed_cents`: of events inside a period of their subscription."""
    sums = {
        name: Sum(subscription["calls"], _dollars(subscription["billed_cents"]))
        for name, subscription in stats["subscriptions"].items()
    }
    return BilledTotal(sums, stats["totals"]["events"], stats["posts"])


def _dollars(cents: str) -> Decimal:
    return EXACT.divide(Decimal(cents), _CENTS)
