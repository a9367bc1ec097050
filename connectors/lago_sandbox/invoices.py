"""Invoices. They are made when the state is read, as of the moment at which they were due, and never changed.

Source: `app/services/invoices/`, `app/models/invoice.rb`, `app/serializers/v1/invoice_serializer.rb`,
`fee_serializer.rb`, `app/queries/invoices_query.rb` of lago-api.

There are no taxes, coupons, wallets and credit notes, and no grace period, which needs a licence: an invoice is final
at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from connectors.lago_sandbox.billing import ChargeFee, charge_fees
from connectors.lago_sandbox.coercion import ruby_decimal
from connectors.lago_sandbox.customers import SandboxCustomer
from connectors.lago_sandbox.identifiers import invoice_id
from connectors.lago_sandbox.instants import day, iso
from connectors.lago_sandbox.invoicing import DueInvoice, bills
from connectors.lago_sandbox.plans import SandboxCharge
from connectors.lago_sandbox.store import EventStore
from connectors.lago_sandbox.stored_event import Event
from connectors.lago_sandbox.subscriptions import SandboxSubscriptions
from schemas.money import ZERO

_MS = 1000
#: Amounts of an invoice that are always 0 here.
_NOTHING = (
    *("taxes_amount_cents", "progressive_billing_credit_amount_cents", "coupons_amount_cents"),
    *("credit_notes_amount_cents", "total_paid_amount_cents", "total_offsetted_credit_note_amount_cents"),
    *("prepaid_credit_amount_cents", "prepaid_granted_credit_amount_cents", "prepaid_purchased_credit_amount_cents"),
)


@dataclass(slots=True)
class SandboxInvoice:
    """An invoice; `made`: its PDF exists."""

    lago_id: str
    customer: SandboxCustomer
    number: int
    bill: DueInvoice
    fees: list[dict[str, Any]]
    made: bool = False

    @property
    def amount_cents(self) -> int:
        """The total, cents."""
        return sum(fee["amount_cents"] for fee in self.fees)

    @property
    def currency(self) -> str:
        """The currency of all its amounts."""
        return self.bill.subscription.plan.currency

    @property
    def payment_status(self) -> str:
        """`pending`; `succeeded` where there is nothing to pay."""
        return "pending" if self.amount_cents else "succeeded"

    def shown(self, url: str) -> dict[str, Any]:
        """Return the invoice in the JSON of a list; `url`: the sandbox's own."""
        amount, issued = self.amount_cents, day(self.bill.at_us).isoformat()
        return {
            "lago_id": self.lago_id,
            "billing_entity_code": "default",
            "sequential_id": self.number,
            "number": f"LAG-{self.customer.number:03d}-{self.number:03d}",
            "issuing_date": issued,
            "payment_due_date": issued,
            "net_payment_term": 0,
            "invoice_type": "subscription",
            "status": "finalized",
            "payment_status": self.payment_status,
            "payment_dispute_lost_at": None,
            "payment_overdue": False,
            "currency": self.currency,
            "fees_amount_cents": amount,
            "sub_total_excluding_taxes_amount_cents": amount,
            "sub_total_including_taxes_amount_cents": amount,
            "total_amount_cents": amount,
            "total_due_amount_cents": amount,
            **dict.fromkeys(_NOTHING, 0),
            "file_url": f"{url}/invoices/{self.lago_id}.pdf" if self.made else None,
            **dict.fromkeys(("xml_url", "web_url", "voided_at")),
            "version_number": 4,
            "self_billed": False,
            "created_at": iso(self.bill.at_us),
            "updated_at": iso(self.bill.at_us),
            "customer": self.customer.shown(),
            **dict.fromkeys(("metadata", "applied_taxes"), ()),
        }

    def billing_periods(self) -> list[dict[str, Any]]:
        """Return the billing periods, which only a single invoice shows; without charges their bounds are null."""
        bill, charged = self.bill, self.bill.from_us < self.bill.until_us
        return [
            {
                "lago_subscription_id": bill.subscription.lago_id,
                "external_subscription_id": bill.subscription.external_id,
                "lago_plan_id": bill.subscription.plan.shown["lago_id"],
                "subscription_from_datetime": iso(bill.fee_from_us or bill.from_us),
                "subscription_to_datetime": iso((bill.fee_until_us or bill.until_us) - 1),
                "charges_from_datetime": iso(bill.from_us) if charged else None,
                "charges_to_datetime": iso(bill.until_us - 1) if charged else None,
                "invoicing_reason": bill.reason,
            }
        ]


class SandboxInvoices:
    """Every invoice of the organization, oldest first."""

    def __init__(self, subscriptions: SandboxSubscriptions) -> None:
        self._subscriptions = subscriptions
        self._all: dict[str, SandboxInvoice] = {}
        self._numbers: dict[str, int] = {}
        self._seen_us: dict[str, int] = {}
        self._made: set[tuple[str, int]] = set()

    def up_to(self, now_us: int, events: EventStore) -> list[SandboxInvoice]:
        """Return all invoices that Lago shows by now. An empty one is hidden where its customer skips those."""
        due: list[DueInvoice] = []
        for s in self._subscriptions.everyone():
            seen_us, delay_us = self._seen_us.get(s.lago_id, -1), self._subscriptions.invoice_delay_us
            due += bills(s, self._subscriptions.following(s), seen_us, now_us, delay_us)
            self._seen_us[s.lago_id] = now_us - 1  # a subscription may still end at this moment
        for bill in sorted(due, key=lambda bill: bill.counted_us):
            made = (bill.subscription.lago_id, bill.at_us)
            if made not in self._made:
                self._made.add(made)
                self._add(bill, events)
        return list(self._all.values())

    def _add(self, bill: DueInvoice, events: EventStore) -> None:
        customer = bill.subscription.customer
        lago_id = invoice_id(bill.subscription.lago_id, bill.at_us)
        fees = fees_of(bill, events, lago_id)
        if (
            not any(fee["amount_cents"] for fee in fees)
            and customer.fields.get("finalize_zero_amount_invoice") == "skip"
        ):
            return
        number = self._numbers[customer.lago_id] = self._numbers.get(customer.lago_id, 0) + 1
        self._all[lago_id] = SandboxInvoice(lago_id, customer, number, bill, fees)


def fees_of(bill: DueInvoice, events: EventStore, lago_id: str) -> list[dict[str, Any]]:
    """Return the subscription's fee, then those of its charges; `lago_id` is the invoice's."""
    plan = bill.subscription.plan
    fees = []
    if bill.fee_cents is not None:
        item = {"type": "subscription", "code": plan.code, "name": plan.shown["name"]}
        days = {"from_date": iso(bill.fee_from_us), "to_date": iso(bill.fee_until_us - 1)}
        fees.append(_fee(bill, lago_id, bill.fee_cents, item) | days)
    if bill.from_us < bill.until_us:
        counted = list(_counted(bill, events.log.of_subscription(bill.subscription.external_id)))
        for charge in plan.charges:
            fees += _charged(bill, lago_id, charge, charge_fees(charge, counted, events.kind))
    return fees


def _counted(bill: DueInvoice, events: Iterable[Event]) -> Iterable[Event]:
    """Yield the events of the period that had arrived when the invoice was counted."""
    from_us = bill.from_us // _MS * _MS
    for event in events:
        if not event.superseded and from_us <= event.ts_us < bill.until_us and event.received_us <= bill.counted_us:
            yield event


def _charged(
    bill: DueInvoice, lago_id: str, charge: SandboxCharge, groups: dict[tuple[str | None, ...], ChargeFee]
) -> Iterable[dict[str, Any]]:
    metric = charge.metric
    item = {"type": "charge", "code": metric.code, "name": metric.shown["name"]}
    for group, fee in groups.items():  # no events, no fee
        units = ruby_decimal(max(fee.units, ZERO))
        yield _fee(bill, lago_id, fee.amount_cents(charge, bill.subscription.plan.currency), item) | {
            "lago_charge_id": charge.shown["lago_id"],
            "units": units,
            "total_aggregated_units": units,
            "events_count": fee.count,
            "from_date": iso(bill.from_us),
            "to_date": iso(bill.until_us - 1),
            "item": {**item, "grouped_by": dict(zip(charge.group_keys, group, strict=False))},
        }


def _fee(bill: DueInvoice, lago_id: str, cents: int, item: dict[str, Any]) -> dict[str, Any]:
    subscription = bill.subscription
    return {
        "lago_invoice_id": lago_id,
        "lago_subscription_id": subscription.lago_id,
        "external_subscription_id": subscription.external_id,
        "lago_customer_id": subscription.customer.lago_id,
        "external_customer_id": subscription.customer.external_id,
        "item": item,
        "pay_in_advance": item["type"] == "subscription" and subscription.plan.pay_in_advance,
        "invoiceable": True,
        "amount_cents": cents,
        "amount_currency": subscription.plan.currency,
        "taxes_amount_cents": 0,
        "total_amount_cents": cents,
        "total_amount_currency": subscription.plan.currency,
        "units": "1.0",
        "events_count": None,
        "payment_status": "pending",
        "created_at": iso(bill.counted_us),
    }
