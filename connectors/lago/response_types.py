"""The fields that Meterbridge reads from Lago's responses about customers, subscriptions, plans and metrics.

Timestamps are ISO 8601 as Lago writes them; `lago_id` is Lago's own UUID.
"""

import msgspec

from schemas.customers import Period
from schemas.errors import Rejected
from schemas.moments import parse_us


class Organization(msgspec.Struct, frozen=True):
    """The organization of the API key; `events_store` is `postgres` or `clickhouse`, None if this Lago does not say."""

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
    """The payment provider of a customer; None = none."""

    payment_provider: str | None = None
    payment_provider_code: str | None = None


class Customer(msgspec.Struct, frozen=True):
    """A customer of Lago: the org that is billed. `applicable_timezone` is the customer's own, or the billing entity's."""

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
        """Return the value of a metadata key."""
        return next((entry.value for entry in self.metadata if entry.key == key), None)


class ServerHealth(msgspec.Struct):
    """`GET /health`."""

    version: str


class Subscription(msgspec.Struct, frozen=True):
    """A subscription; `next_plan_code` and `downgrade_plan_date` (a UTC day) show a pending change.

    Fields:
        started_at: precise to the millisecond; None while the subscription is pending.
        current_billing_period_ending_at: the last second of the period.
        of_org: a field of Meterbridge, not of Lago: whether `external_customer_id` is the key of an org in a further
            organisation.
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
    of_org: bool = False


class Metric(msgspec.Struct, frozen=True):
    """A billable metric; `field_name` is the property that it reads, None for a count."""

    code: str
    aggregation_type: str
    field_name: str | None = None
    lago_id: str = ""
    name: str = ""


class Charge(msgspec.Struct, frozen=True):
    """The price of a metric in a plan; `pay_in_advance`: each event is invoiced when Lago gets it."""

    billable_metric_code: str
    charge_model: str
    pay_in_advance: bool = False


class Plan(msgspec.Struct, frozen=True):
    """A plan; it costs `amount_cents` per `interval`, in the smallest unit of the currency."""

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
    """An endpoint for Lago's webhooks; `event_types` None = all types."""

    webhook_url: str
    lago_id: str = ""
    signature_algo: str = "jwt"
    name: str | None = None
    event_types: tuple[str, ...] | None = None


def period_of(subscription: Subscription) -> Period:
    """Return the life of a subscription. Raises: Rejected `bad_time`, also if it has not started."""
    if subscription.started_at is None:
        raise Rejected("bad_time", "not started")
    ended = None if subscription.terminated_at is None else parse_us(subscription.terminated_at)
    return Period(subscription.external_id, parse_us(subscription.started_at), ended, subscription.plan_code or "")
