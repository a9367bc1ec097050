"""Makes the metrics, plans and webhook endpoint that Lago needs before usage is billed, if they are missing.

Each is made by one request, with a code or an address that Lago accepts only once. So the next run completes an
interrupted run. An existing object that differs is reported and not changed, because Lago refuses changes of objects
that are in use.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from msgspec import UNSET

from connectors.lago.client import LagoClient
from connectors.lago.requests import NewCharge, NewMetric, NewPlan, NewWebhookEndpoint
from connectors.lago.responses import Metric, Plan, WebhookEndpoint

CURRENCY: Final = "USD"
API_CALL: Final = "api_call"
#: The property of an event that the metric of usage sums. It is never zero, because Lago would bill nothing.
UNIT: Final = "unit"
#: Code and name of plans that bill usage at its cost.
USAGE_PLANS: Final = (("ai_usage_plan", "AI usage"), ("ai_basic", "AI basic"))
#: Code, name and cents of plans with a monthly price and no charge on usage.
FLAT_PLANS: Final = (
    ("trial", "Trial", 100),
    ("starter", "Starter", 1900),
    ("professional", "Professional", 4900),
    ("enterprise", "Enterprise", 9900),
    ("founders_friend", "Founders Friend Plan", 0),
)

M = TypeVar("M")


@dataclass(slots=True)
class SetupReport:
    """The created objects, and a sentence for each object that is missing or differs."""

    created: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


class Setup:
    """Makes and compares the objects in one Lago.

    Args:
        event_code: code of the metric of usage, `LAGO_EVENT_CODE`.
        webhook_url: address for Lago's webhooks; None = none is registered.
        only_check: make nothing.
    """

    def __init__(self, lago: LagoClient, event_code: str, webhook_url: str | None, *, only_check: bool) -> None:
        self._lago = lago
        self._event_code = event_code
        self._webhook_url = webhook_url
        self._only_check = only_check
        self._report = SetupReport()

    async def run(self) -> SetupReport:
        """Make the missing objects, and compare the others. Metrics come first, because a plan's charge names a metric
        by Lago's id.

        Raises:
            LagoIntegrationError: Lago does not answer, or refuses.
        """
        new_metric = NewMetric(name="AI usage", code=self._event_code, aggregation_type="sum_agg", field_name=UNIT)
        usage = await self._metric(new_metric)
        summed = usage is not None and usage.aggregation_type == new_metric.aggregation_type
        await self._metric(NewMetric(name="API calls", code=API_CALL, aggregation_type="count_agg"))
        known = {plan.code: plan for plan in await self._lago.plans()}
        for code, name in USAGE_PLANS:
            metric_id = usage.lago_id if usage is not None else ""
            charge = NewCharge(billable_metric_id=metric_id, charge_model="dynamic", properties={})
            await self._plan(known.get(code), _plan(code, name, 0, charge), makeable=summed)
        for code, name, cents in FLAT_PLANS:
            await self._plan(known.get(code), _plan(code, name, cents))
        if self._webhook_url is not None:
            await self._endpoint(self._webhook_url)
        return self._report

    async def _metric(self, new_metric: NewMetric) -> Metric | None:
        known = await self._lago.metric(new_metric.code)
        known = await self._made(f"metric {new_metric.code}", known, lambda: self._lago.create_metric(new_metric))
        if known is not None:
            field_name = None if new_metric.field_name is UNSET else new_metric.field_name
            self._compare(
                f"metric {new_metric.code}",
                ("is", known.aggregation_type, new_metric.aggregation_type),
                ("reads the property", known.field_name, field_name),
            )
        return known

    async def _plan(self, known: Plan | None, new_plan: NewPlan, *, makeable: bool = True) -> None:
        """Args: makeable: False = Lago would refuse the plan's charge because of its metric."""
        what = f"plan {new_plan.code}"
        known = await self._made(what, known, lambda: self._lago.create_plan(new_plan), makeable=makeable)
        if known is None:
            return
        self._compare(
            what,
            ("costs cents", known.amount_cents, new_plan.amount_cents),
            ("is in", known.amount_currency, new_plan.amount_currency),
            ("is billed", known.interval, new_plan.interval),
            ("is paid in advance:", known.pay_in_advance, new_plan.pay_in_advance),
        )
        if new_plan.charges:
            models = [
                charge.charge_model for charge in known.charges if charge.billable_metric_code == self._event_code
            ]
            self._compare(what, (f"charges {self._event_code} as", ", ".join(models) or "nothing", "dynamic"))

    async def _endpoint(self, url: str) -> None:
        listed = await self._lago.webhook_endpoints()
        known = next((endpoint for endpoint in listed if endpoint.webhook_url.rstrip("/") == url.rstrip("/")), None)
        new_endpoint = NewWebhookEndpoint(webhook_url=url, signature_algo="hmac", name="Meterbridge")
        made: WebhookEndpoint | None = await self._made(
            "webhook endpoint", known, lambda: self._lago.create_webhook_endpoint(new_endpoint)
        )
        if made is not None:
            types = "all" if made.event_types is None else ", ".join(made.event_types)
            self._compare(
                "webhook endpoint",
                ("signs by", made.signature_algo, new_endpoint.signature_algo),
                ("is sent", types, "all"),
            )

    async def _made(
        self, what: str, known: M | None, create: Callable[[], Awaitable[M]], *, makeable: bool = True
    ) -> M | None:
        """Return the existing or the new object; None = it is missing and is not made."""
        if known is not None:
            return known
        if self._only_check or not makeable:
            self._report.complaints.append(f"The {what} is missing.")
            return None
        made = await create()
        self._report.created.append(what)
        return made

    def _compare(self, what: str, *facts: tuple[str, object, object]) -> None:
        self._report.complaints += _differences(what, facts)


def _differences(what: str, facts: Iterable[tuple[str, object, object]]) -> Iterable[str]:
    for says, actual, expected in facts:
        if actual != expected:
            yield f"The {what} {says} {actual}, not {expected}."


def _plan(code: str, name: str, cents: int, *charges: NewCharge) -> NewPlan:
    """Describe a monthly plan, paid in arrears. Lago then bills a change of plan by the day, without credit notes."""
    return NewPlan(
        name=name,
        code=code,
        interval="monthly",
        amount_cents=cents,
        amount_currency=CURRENCY,
        pay_in_advance=False,
        charges=charges,
    )
