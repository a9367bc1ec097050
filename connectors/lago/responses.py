"""The fields that Meterbridge reads from Lago's responses.

Timestamps are ISO 8601 as Lago writes them; `lago_id` is Lago's own UUID.
"""

from typing import Any

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
    """The price of a metric in a plan; `pay_in_advance`: each event is invoiced when Lago gets it. `properties`, and those in
    `filters`, have the prices, which each charge model names in its own way.
    """

    billable_metric_code: str
    charge_model: str
    pay_in_advance: bool = False
    properties: Any = None
    filters: Any = None


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


class FeeItem(msgspec.Struct, frozen=True):
    """The subject of a fee: `type` is `subscription` or `charge`; `code` is the code of the plan or of the metric.

    Fields:
        grouped_by: the values of the group of this fee, if the charge groups its events.
    """

    type: str = ""
    code: str = ""
    name: str | None = None
    grouped_by: Any = None


class Fee(msgspec.Struct, frozen=True):
    """One line of an invoice, before taxes."""

    amount_cents: int = 0
    amount_currency: str = ""
    units: str | float = "0"
    events_count: int | None = None
    external_subscription_id: str | None = None
    from_date: str | None = None
    to_date: str | None = None
    item: FeeItem = FeeItem()
    lago_subscription_id: str | None = None
    lago_charge_filter_id: str | None = None
    pay_in_advance: bool | None = None


class BillingPeriod(msgspec.Struct, frozen=True):
    """The period of a subscription that an invoice bills: the events with a timestamp from `charges_from_datetime` to
    `charges_to_datetime`, both included, in whole seconds.
    """

    lago_subscription_id: str | None = None
    charges_from_datetime: str | None = None
    charges_to_datetime: str | None = None


class Payer(msgspec.Struct, frozen=True):
    """The customer of an invoice."""

    external_id: str = ""


class Invoice(msgspec.Struct, frozen=True):
    """An invoice; money in the smallest unit of `currency`, days in UTC.

    Fields:
        status: `draft`, `finalized`, `voided`, `failed` or `pending`.
        payment_status: `pending`, `succeeded` or `failed`; an invoice of 0 is `succeeded`.
        file_url: URL of the PDF; None until Lago has made it.
        fees, billing_periods: only in the response to a request for one invoice.
    """

    lago_id: str
    number: str = ""
    issuing_date: str | None = None
    payment_due_date: str | None = None
    payment_overdue: bool = False
    invoice_type: str = ""
    status: str = ""
    payment_status: str = ""
    currency: str = ""
    fees_amount_cents: int = 0
    taxes_amount_cents: int = 0
    total_amount_cents: int = 0
    total_due_amount_cents: int | None = None
    file_url: str | None = None
    web_url: str | None = None
    fees: tuple[Fee, ...] = ()
    customer: Payer | None = None
    created_at: str | None = None
    billing_periods: tuple[BillingPeriod, ...] = ()


class InvoicePreview(msgspec.Struct, frozen=True):
    """The invoice of a change of plan; money in the smallest unit of `currency`, after coupons and credits.

    Fields:
        issuing_date: today, or the day after the running period.
        credit_notes_amount_cents, prepaid_credit_amount_cents, coupons_amount_cents: deductions.
    """

    currency: str = ""
    issuing_date: str | None = None
    fees_amount_cents: int = 0
    taxes_amount_cents: int = 0
    coupons_amount_cents: int = 0
    credit_notes_amount_cents: int = 0
    prepaid_credit_amount_cents: int = 0
    total_amount_cents: int = 0
    fees: tuple[Fee, ...] = ()


class MetricCode(msgspec.Struct, frozen=True):
    """The billable metric of a charge."""

    code: str
    name: str = ""


class UsageCharge(msgspec.Struct, frozen=True):
    """The usage of one charge. It has one fee for each group and filter, or a single fee."""

    amount_cents: int
    billable_metric: MetricCode
    filters: list[msgspec.Raw] = []
    grouped_usage: list[msgspec.Raw] = []
    units: str = "0"
    events_count: int = 0
    amount_currency: str = ""


class CustomerUsage(msgspec.Struct, frozen=True):
    """The usage in the running period of a subscription; both ends are included, ISO 8601 in milliseconds."""

    from_datetime: str
    to_datetime: str
    charges_usage: list[UsageCharge] = []
    currency: str = ""
    amount_cents: int = 0
    taxes_amount_cents: int = 0
    total_amount_cents: int = 0


class EventShape(msgspec.Struct):
    """An event in Lago's form; `timestamp` and `created_at` (when Lago stored it, in seconds) are ISO 8601."""

    transaction_id: str
    external_subscription_id: str | None
    code: str
    timestamp: str
    precise_total_amount_cents: str | None = None
    properties: dict[str, msgspec.Raw] = {}


class StoredEvent(msgspec.Struct, gc=False):
    """The fields of an event that a last invoice counts; `created_at` is the time at which Lago stored it, ISO 8601, to
    the second.
    """

    transaction_id: str
    created_at: str | None = None
    precise_total_amount_cents: str | None = None


def period_of(subscription: Subscription) -> Period:
    """Return the life of a subscription. Raises: Rejected `bad_time`, also if it has not started."""
    if subscription.started_at is None:
        raise Rejected("bad_time", "not started")
    ended = None if subscription.terminated_at is None else parse_us(subscription.terminated_at)
    return Period(subscription.external_id, parse_us(subscription.started_at), ended, subscription.plan_code or "")
