"""The parts of Lago's answers that are read, and what they mean in our own types."""

from decimal import Decimal

import msgspec

from schemas.customers import Period
from schemas.moments import lago_timestamp, parse_us
from schemas.records import LagoEvent
from streams.core.proof import LagoUsage


class Organization(msgspec.Struct, frozen=True):
    """Lago's tenant; `events_store` is `postgres` or `clickhouse`, None where this Lago does not tell."""

    lago_id: str | None = None
    name: str | None = None
    events_store: str | None = None


class Customer(msgspec.Struct, frozen=True):
    """Lago's customer: the billed org."""

    external_id: str
    lago_id: str | None = None
    name: str | None = None
    currency: str | None = None


class Health(msgspec.Struct):
    version: str


class Event(msgspec.Struct):
    transaction_id: str
    external_subscription_id: str | None
    code: str
    timestamp: str
    precise_total_amount_cents: str | None = None
    properties: dict[str, msgspec.Raw] = {}


class EventBody(msgspec.Struct):
    event: Event


class OrganizationBody(msgspec.Struct):
    organization: Organization


class CustomerBody(msgspec.Struct):
    customer: Customer


class Subscription(msgspec.Struct):
    external_id: str
    started_at: str
    plan_code: str | None = None
    terminated_at: str | None = None


class _Meta(msgspec.Struct):
    next_page: int | None = None


class SubscriptionsBody(msgspec.Struct):
    subscriptions: list[Subscription]
    meta: _Meta = msgspec.field(default_factory=_Meta)


class Metric(msgspec.Struct, frozen=True):
    """A billable metric; `field_name` is the property it reads, None for a count."""

    code: str
    aggregation_type: str
    field_name: str | None = None


class MetricBody(msgspec.Struct):
    billable_metric: Metric


class Charge(msgspec.Struct, frozen=True):
    """What a plan takes for a metric."""

    billable_metric_code: str
    charge_model: str


class Plan(msgspec.Struct, frozen=True):
    """A plan of any customer's."""

    code: str
    amount_currency: str
    charges: tuple[Charge, ...] = ()


class PlansBody(msgspec.Struct):
    plans: list[Plan]
    meta: _Meta = msgspec.field(default_factory=_Meta)


class Refusal(msgspec.Struct):
    code: str = ""


def event_of(found: Event) -> LagoEvent:
    """The event as it would be sent. Raises: Rejected `bad_time`."""
    return LagoEvent(
        transaction_id=found.transaction_id,
        external_subscription_id=found.external_subscription_id or "",
        code=found.code,
        timestamp=lago_timestamp(parse_us(found.timestamp)),
        precise_total_amount_cents=found.precise_total_amount_cents or "0",
        properties={name: _text(value) for name, value in found.properties.items()},
    )


def _text(value: msgspec.Raw) -> str:
    """A JSON text as itself, anything else as its JSON."""
    decoded = msgspec.json.decode(value)
    return decoded if isinstance(decoded, str) else bytes(value).decode()


def period_of(found: Subscription) -> Period:
    """Raises: Rejected `bad_time`."""
    ended = None if found.terminated_at is None else parse_us(found.terminated_at)
    return Period(found.external_id, parse_us(found.started_at), ended, found.plan_code or "")


class UsageCharge(msgspec.Struct, frozen=True):
    """One charge of the current usage: its fee lines are its groups and filters, or itself."""

    amount_cents: int
    billable_metric: "MetricCode"
    filters: list[msgspec.Raw] = []
    grouped_usage: list[msgspec.Raw] = []


class MetricCode(msgspec.Struct, frozen=True):
    """Which metric a charge is on."""

    code: str


class CustomerUsage(msgspec.Struct, frozen=True):
    """The running period of a subscription: `[from_datetime, to_datetime]`, ISO 8601, to the millisecond."""

    from_datetime: str
    to_datetime: str
    charges_usage: list[UsageCharge] = []


class UsageBody(msgspec.Struct, frozen=True):
    """`GET /customers/{id}/current_usage`."""

    customer_usage: CustomerUsage


def usage_of(subscription: str, usage: CustomerUsage, code: str) -> LagoUsage:
    """What Lago counts on the metric `code`. Raises: Rejected: `bad_time`."""
    ours = [charge for charge in usage.charges_usage if charge.billable_metric.code == code]
    return LagoUsage(
        subscription,
        parse_us(usage.from_datetime),
        parse_us(usage.to_datetime) + 1,
        Decimal(sum(charge.amount_cents for charge in ours)),
        sum(max(1, len(charge.grouped_usage), len(charge.filters)) for charge in ours),
    )
