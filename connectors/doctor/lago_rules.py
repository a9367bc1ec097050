"""Checks whether Lago can bill our events; pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from connectors.config.settings import Settings
from connectors.doctor.catalogue import Finding
from connectors.lago.responses import Metric, Plan, Subscription
from streams.core.delivery.verdicts import batches_are_whole

CLICKHOUSE = "clickhouse"
#: The currency of LiteLLM's costs.
CURRENCY = "USD"
#: The property of an event that the metric has to sum.
UNIT = "unit"
#: Number of customers that a finding names.
SHOWN = 5


@dataclass(frozen=True, slots=True)
class SeenLago:
    """Lago as its API shows it.

    Fields:
        metric: the metric LAGO_EVENT_CODE.
        running: all active subscriptions.
        stored: code and external subscription id of the newest events on each other metric.
    """

    version: str
    event_store: str | None
    metric: Metric | None
    plans: tuple[Plan, ...]
    running: tuple[Subscription, ...] = ()
    stored: tuple[tuple[str, str], ...] = ()


def judge_lago(lago: SeenLago, own: Settings) -> list[Finding]:
    """Return all findings in Lago, given our own settings."""
    return [*_server(lago, own), *_metric(lago, own), *_plans(lago, own), *_customers(lago, own), *_stored(lago)]


def _server(lago: SeenLago, own: Settings) -> Iterator[Finding]:
    if not batches_are_whole(lago.version):
        yield Finding("lago_old", f"Lago is {lago.version}.")
    if lago.event_store == CLICKHOUSE and not own.lago_clickhouse_dedup:
        yield Finding(
            "clickhouse_without_dedup", "Lago keeps events in ClickHouse, and LAGO_CLICKHOUSE_DEDUP is not set."
        )


def _metric(lago: SeenLago, own: Settings) -> Iterator[Finding]:
    metric = lago.metric
    if metric is None:
        yield Finding("metric_missing", f"Lago has no billable metric {own.lago_event_code}.")
    elif (metric.aggregation_type, metric.field_name) != ("sum_agg", UNIT):
        over = f" over {metric.field_name}" if metric.field_name else ""
        yield Finding("metric_not_sum_of_unit", f"The metric {metric.code} is {metric.aggregation_type}{over}.")


def _plans(lago: SeenLago, own: Settings) -> Iterator[Finding]:
    """Check all plans that charge the metric, because any org may be on them."""
    if lago.metric is None:
        return
    charging = [
        (plan, [charge.charge_model for charge in plan.charges if charge.billable_metric_code == own.lago_event_code])
        for plan in lago.plans
    ]
    if not any(models for _, models in charging):
        yield Finding("plan_missing", f"No plan of Lago's charges {own.lago_event_code}.")
    for plan, models in charging:
        if models and plan.amount_currency != CURRENCY:
            yield Finding("plan_currency", f"The plan {plan.code} is in {plan.amount_currency}.")
        for model in models:
            if model != "dynamic":
                yield Finding("charge_not_dynamic", f"The plan {plan.code} charges {own.lago_event_code} as {model}.")


def _customers(lago: SeenLago, own: Settings) -> Iterator[Finding]:
    """Report customers with no active subscription that charges the metric, or with several."""
    code = own.lago_event_code
    charging = {plan.code for plan in lago.plans if any(charge.billable_metric_code == code for charge in plan.charges)}
    if not charging:
        return
    plans_by_customer: dict[str, set[str]] = {}
    for subscription in lago.running:
        mine = plans_by_customer.setdefault(subscription.external_customer_id or "", set())
        if subscription.plan_code in charging:
            mine.add(subscription.external_id)
    without = sorted(customer for customer, mine in plans_by_customer.items() if not mine)
    several = sorted(customer for customer, mine in plans_by_customer.items() if len(mine) > 1)
    if without:
        yield Finding("customer_without_charge", f"No subscription of {_examples(without)} charges {code}.")
    if several:
        yield Finding("several_that_charge", f"More than one subscription of {_examples(several)} charges {code}.")


def _stored(lago: SeenLago) -> Iterator[Finding]:
    """Report events on other metrics whose plan has no charge on the metric: Lago stores such events but does not bill
    them.

    Such events are not held, because they have no cost of their own. The charges of a plan that Lago does not list are
    unknown.
    """
    charged = {plan.code: {charge.billable_metric_code for charge in plan.charges} for plan in lago.plans}
    running = {subscription.external_id: subscription for subscription in lago.running}
    customers_by_code: dict[str, set[str]] = {}
    for code, external_id in lago.stored:
        subscription = running.get(external_id)
        codes = None if subscription is None else charged.get(subscription.plan_code or "")
        if subscription is not None and codes is not None and code not in codes:
            customers_by_code.setdefault(code, set()).add(subscription.external_customer_id or external_id)
    for code, customers in sorted(customers_by_code.items()):
        named = _examples(sorted(customers))
        yield Finding(
            "stored_without_charge", f"Lago stores events of {code} for {named}, whose plans have no charge on it."
        )


def _examples(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more customers" if rest > 0 else "")
