"""The bodies of requests to Lago. Only fields that are set are sent, so that an update does not change the others."""

import msgspec
from msgspec import UNSET, UnsetType

Text = str | UnsetType


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry of a customer's metadata; `id` is Lago's id of the entry that it replaces (connectors/lago/metadata.py)."""

    key: str
    value: str
    id: Text = UNSET
    display_in_invoice: bool = False


class PaymentBy(msgspec.Struct, frozen=True, omit_defaults=True):
    """The payment provider of a customer."""

    payment_provider: Text = UNSET
    payment_provider_code: Text = UNSET
    provider_customer_id: Text = UNSET
    sync: bool | UnsetType = UNSET
    sync_with_provider: bool | UnsetType = UNSET


class NewCustomer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A customer to create or change. `LagoClient.save_customer` adds the metadata."""

    external_id: str
    name: Text = UNSET
    email: Text = UNSET
    currency: Text = UNSET
    legal_name: Text = UNSET
    legal_number: Text = UNSET
    tax_identification_number: Text = UNSET
    phone: Text = UNSET
    url: Text = UNSET
    address_line1: Text = UNSET
    address_line2: Text = UNSET
    zipcode: Text = UNSET
    city: Text = UNSET
    state: Text = UNSET
    country: Text = UNSET
    net_payment_term: int | UnsetType = UNSET
    billing_configuration: PaymentBy | UnsetType = UNSET
    metadata: tuple[Note, ...] | UnsetType = UNSET


class NewSubscription(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A new subscription, or another plan for the one with this `external_id`.

    Fields:
        billing_time: `calendar` (Lago's default) or `anniversary`.
        subscription_at, ending_at: ISO 8601.
    """

    external_customer_id: str
    plan_code: str
    external_id: str
    name: Text = UNSET
    billing_time: Text = UNSET
    subscription_at: Text = UNSET
    ending_at: Text = UNSET


class PreviewOf(msgspec.Struct, frozen=True, kw_only=True):
    """The customer of a previewed invoice."""

    external_id: str


class PreviewedChange(msgspec.Struct, frozen=True, kw_only=True):
    """Active subscriptions, and the plan to which they would change."""

    external_ids: tuple[str, ...]
    plan_code: str


class ChangePreview(msgspec.Struct, frozen=True, kw_only=True):
    """A request for the preview of a change of plan. It has no root key."""

    customer: PreviewOf
    subscriptions: PreviewedChange


class SubscriptionChange(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Changes that keep the plan; `ending_at` None = without an end."""

    name: Text = UNSET
    ending_at: str | UnsetType | None = UNSET


class NewMetric(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A billable metric; `field_name` is the property that it reads, unset for a count."""

    name: str
    code: str
    aggregation_type: str
    field_name: Text = UNSET
    description: Text = UNSET


class NewCharge(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A charge; the metric is named by Lago's UUID. Amounts in `properties` are text, because Lago refuses JSON numbers."""

    billable_metric_id: str
    charge_model: str
    properties: dict[str, object] | UnsetType = UNSET
    invoice_display_name: Text = UNSET


class NewPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A plan; `interval` is `weekly`, `monthly`, `quarterly`, `semiannual` or `yearly`."""

    name: str
    code: str
    interval: str
    amount_cents: int
    amount_currency: str
    pay_in_advance: bool
    description: Text = UNSET
    charges: tuple[NewCharge, ...] = ()


class NewWebhookEndpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An endpoint for Lago's webhooks; it gets all types unless `event_types` is set."""

    webhook_url: str
    signature_algo: str
    name: Text = UNSET
    event_types: tuple[str, ...] | UnsetType = UNSET
