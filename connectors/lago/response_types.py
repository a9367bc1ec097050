"""The parts of Lago's answers about customers, subscriptions, plans and metrics that are read.

Moments are ISO 8601 as Lago writes them; `lago_id` is Lago's own UUID.
"""

import msgspec

from schemas.customers import Period
from schemas.errors import Rejected
from schemas.moments import parse_us


class Organization(msgspec.Struct, frozen=True):
    """Lago's tenant; `events_store` is `postgres` or `clickhouse`, None where this Lago does not tell."""

    lago_id: str | None = None
    name: str | None = None
    events_store: str | None = None


class Metadata(msgspec.Struct, frozen=True):
    """An entry of a customer's metadata."""

    lago_id: str
    key: str
    value: str
    display_in_invoice: bool = False


class PaymentConfiguration(msgspec.Struct, frozen=True):
    """Who collects a customer's money; None where nobody does."""

    payment_provider: str | None = None
    payment_provider_code: str | None = None


class Customer(msgspec.Struct, frozen=True):
    """Lago's customer: the billed org; `applicable_timezone` is its own, or else that of whoever bills it."""

    external_id: str
    lago_id: str | None = None
    name: str | None = None
    currency: str | None = None
    email: str | None = None
    created_at: str | None = None
    metadata: tuple[Metadata, ...] = ()
    billing_configuration: PaymentConfiguration | None = None
    timezone: str | None = None
    applicable_timezone: str | None = None

    def note(self, key: str) -> str | None:
        """The value of a metadata key."""
        return next((entry.value for entry in self.metadata if entry.key == key), None)


class ServerHealth(msgspec.Struct):
    """`GET /health`."""

    version: str


class Subscription(msgspec.Struct, frozen=True):
    """A subscription; `next_plan_code` and `downgrade_plan_date` (a UTC day) show a change that waits.

    Fields:
        started_at: to the millisecond; None while it is pending.
        current_billing_period_ending_at: the period's last second.
    """

    external_id: str
    started_at: str | None = None
    plan_code: str | None = None
    terminated_at: str | None = None
    lago_id: str | None = None
    external_customer_id: str | None = None
    name: str | None = None
    status: str = ""
    billing_time: str | None = None
    subscription_at: str | None = None
    ending_at: str | None = None
    previous_plan_code: str | None = None
    next_plan_code: str | None = None
    downgrade_plan_date: str | None = None
    current_billing_period_started_at: str | None = None
    current_billing_period_ending_at: str | None = None


class Metric(msgspec.Struct, frozen=True):
    """A billable metric; `field_name` is the property it reads, None for a count."""

    code: str
    aggregation_type: str
    field_name: str | None = None
    lago_id: str = ""
    name: str = ""


class Charge(msgspec.Struct, frozen=True):
    """What a plan takes for a metric; `pay_in_advance`: each event is invoiced when it comes."""

    billable_metric_code: str
    charge_model: str
    pay_in_advance: bool = False


class Plan(msgspec.Struct, frozen=True):
    """A plan of any customer's; `amount_cents` an `interval`, in the currency's smallest unit."""

    code: str
    amount_currency: str
    charges: tuple[Charge, ...] = ()
    name: str = ""
    amount_cents: int = 0
    interval: str = ""
    pay_in_advance: bool = False
    lago_id: str = ""
    bill_charges_monthly: bool | None = None


class WebhookEndpoint(msgspec.Struct, frozen=True):
    """Where Lago sends its webhooks; `event_types` None = all of them."""

    webhook_url: str
    lago_id: str = ""
    signature_algo: str = "jwt"
    name: str | None = None
    event_types: tuple[str, ...] | None = None


def period_of(found: Subscription) -> Period:
    """Raises: Rejected `bad_time`, also for one that has not started."""
    if found.started_at is None:
        raise Rejected("bad_time", "not started")
    ended = None if found.terminated_at is None else parse_us(found.terminated_at)
    return Period(found.external_id, parse_us(found.started_at), ended, found.plan_code or "")
