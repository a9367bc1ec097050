"""Customers: created or updated by external id, with metadata that is not idempotent.

Source: `app/services/customers/upsert_from_api_service.rb`, `customers/metadata/update_service.rb`,
`customers/destroy_service.rb`, `app/models/metadata/customer_metadata.rb` of lago-api.
"""

from dataclasses import dataclass, field
from re import compile as re_compile
from typing import Any

from connectors.lago_sandbox.coercion import blank, text
from connectors.lago_sandbox.identifiers import Identifiers
from connectors.lago_sandbox.instants import iso
from connectors.lago_sandbox.refusals import invalid, invalid_field, not_found

MAX_METADATA = 5
_MAX_LENGTH = {"key": 20, "value": 100}
_CURRENCY = re_compile(r"[A-Z]{3}")

#: Fields that are stored and shown as sent; an update changes only those that a request has.
_FIELDS = (
    *("name", "firstname", "lastname", "customer_type", "country", "address_line1", "address_line2", "state"),
    *("zipcode", "email", "city", "url", "phone", "logo_url", "legal_name", "legal_number", "currency"),
    *("tax_identification_number", "net_payment_term", "external_salesforce_id", "finalize_zero_amount_invoice"),
)

#: The fields of `billing_configuration` that are stored.
_PAYMENT = ("payment_provider", "payment_provider_code", "provider_customer_id")


@dataclass(slots=True)
class SandboxCustomer:
    """One customer; moments in microseconds."""

    lago_id: str
    external_id: str
    number: int
    created_us: int
    updated_us: int
    fields: dict[str, Any] = field(default_factory=dict)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    payment: dict[str, Any] = field(default_factory=dict)

    @property
    def payment_provider(self) -> str | None:
        """The payment provider; the sandbox accepts any name and calls no provider."""
        return text(self.payment.get("payment_provider"))

    def shown(self) -> dict[str, Any]:
        """Return the customer in the JSON of `GET /customers/{external_id}`."""
        return {
            "lago_id": self.lago_id,
            "external_id": self.external_id,
            "sequential_id": self.number,
            "slug": f"LAG-{self.number:03d}",
            "billing_entity_code": "default",
            "account_type": "customer",
            "created_at": iso(self.created_us),
            "updated_at": iso(self.updated_us),
            "timezone": None,
            "applicable_timezone": "UTC",
            **dict.fromkeys(_FIELDS),
            "finalize_zero_amount_invoice": "inherit",
            **self.fields,
            "billing_configuration": {
                **dict.fromkeys(("invoice_grace_period", "document_locale")),
                **{name: text(self.payment.get(name)) for name in _PAYMENT},
            },
            "shipping_address": dict.fromkeys(
                ("address_line1", "address_line2", "city", "zipcode", "state", "country")
            ),
            "skip_invoice_custom_sections": False,
            "metadata": self.metadata,
            "taxes": [],
            "integration_customers": [],
        }


class SandboxCustomers:
    """Every customer of the organization, by external id."""

    def __init__(self, identifiers: Identifiers) -> None:
        self.all: dict[str, SandboxCustomer] = {}
        self._identifiers = identifiers
        self._created = 0

    def upsert(self, sent: dict[str, Any], now_us: int) -> SandboxCustomer:
        """Create a customer, or change the fields that are present.

        Raises:
            SandboxRefusal: 422; then nothing is changed.
        """
        external_id = text(sent.get("external_id")) or ""
        known = self.all.get(external_id)
        metadata = sent.get("metadata")
        if isinstance(metadata, list) and len(metadata) > MAX_METADATA:
            raise invalid_field("metadata", "invalid_count")
        if blank(external_id):
            raise invalid_field("external_id", "value_is_mandatory")
        fields = {name: sent[name] for name in _FIELDS if name in sent}
        if fields.get("currency") is not None and not _CURRENCY.fullmatch(str(fields["currency"])):
            raise invalid_field("currency", "value_is_invalid")
        kept = known.metadata if known else []
        entries = self._replaced(kept, metadata, now_us) if isinstance(metadata, list) else kept
        customer = known or self._new(external_id, now_us)
        customer.fields |= fields
        if isinstance(payment := sent.get("billing_configuration"), dict):
            customer.payment |= {name: payment[name] for name in _PAYMENT if name in payment}
        customer.metadata = entries
        customer.updated_us = now_us
        return customer

    def ensure(self, external_id: str, currency: str, now_us: int) -> SandboxCustomer:
        """Return the customer of a new subscription, created if missing; its currency defaults to the plan's."""
        customer = self.all.get(external_id) or self._new(external_id, now_us)
        if not customer.fields.get("currency"):
            customer.fields["currency"] = currency
        return customer

    def delete(self, external_id: str) -> SandboxCustomer:
        """Delete it; its external id can be used again. The caller ends its subscriptions.

        Raises:
            SandboxRefusal: 404.
        """
        if external_id not in self.all:
            raise not_found("customer")
        return self.all.pop(external_id)

    def _new(self, external_id: str, now_us: int) -> SandboxCustomer:
        self._created += 1
        customer = SandboxCustomer(self._identifiers.new("customer"), external_id, self._created, now_us, now_us)
        self.all[external_id] = customer
        return customer

    def _replaced(self, kept: list[dict[str, Any]], sent: list[Any], now_us: int) -> list[dict[str, Any]]:
        """Return the metadata after an update: new entries are created before old ones are deleted.

        So a key that is sent again without its id collides with itself.
        """
        entries = {entry["lago_id"]: dict(entry) for entry in kept}
        mentioned: set[str] = set()
        for item in filter(lambda item: isinstance(item, dict), sent):
            entry_id = text(item.get("id")) or ""
            if entry_id not in entries:
                entry_id = self._identifiers.new("metadata")
            entry = entries.get(entry_id, {"lago_id": entry_id, "created_at": iso(now_us)})
            entry |= {name: text(item[name]) for name in _MAX_LENGTH if name in item}
            entry["display_in_invoice"] = bool(item.get("display_in_invoice"))
            others = {other["key"] for other_id, other in entries.items() if other_id != entry_id}
            _check(entry, others)
            entries[entry_id] = entry
            mentioned.add(entry_id)
        return [entry for entry_id, entry in entries.items() if entry_id in mentioned]


def _check(entry: dict[str, Any], other_keys: set[str]) -> None:
    errors: dict[str, list[str]] = {}
    for name, longest in _MAX_LENGTH.items():
        value = entry.get(name)
        if blank(value):
            errors[name] = ["value_is_mandatory"]
        elif len(value or "") > longest:
            errors[name] = ["value_is_too_long"]
    if entry.get("key") in other_keys:
        errors.setdefault("key", []).append("value_already_exist")
    if errors:
        raise invalid(errors)
