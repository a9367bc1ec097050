"""All the sandbox knows, and the one door through which it changes: every change is journalled."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from connectors.lago_sandbox.customers import SandboxCustomer, SandboxCustomers
from connectors.lago_sandbox.identifiers import Identifiers
from connectors.lago_sandbox.invoices import SandboxInvoice, SandboxInvoices
from connectors.lago_sandbox.journal import Entry, Journal
from connectors.lago_sandbox.metrics import SandboxMetric, SandboxMetrics
from connectors.lago_sandbox.offers import Offers
from connectors.lago_sandbox.plans import SandboxPlan, SandboxPlans
from connectors.lago_sandbox.store import ClickhouseStore, EventLog, EventStore, PostgresStore, StoreKind
from connectors.lago_sandbox.stored_event import Event
from connectors.lago_sandbox.subscription import SandboxSubscription
from connectors.lago_sandbox.subscriptions import SandboxSubscriptions
from connectors.lago_sandbox.webhook_endpoints import Endpoints
from schemas.moments import SECOND_US

_Stored = tuple[str, str | None, str, int, str | None, msgspec.Raw, int]

_objects = msgspec.json.Decoder(dict[str, Any])
_events = msgspec.json.Decoder(list[_Stored])
_ids = msgspec.json.Decoder(list[str])


class Sandbox:
    """The state of one Lago organization.

    Fields:
        posts, batches: requests on the events endpoints, and those of them on the batch endpoint,
            since the start, also those answered by a fault.
    """

    events: EventStore
    offers: Offers
    customers: SandboxCustomers
    metrics: SandboxMetrics
    plans: SandboxPlans
    subscriptions: SandboxSubscriptions
    invoices: SandboxInvoices
    endpoints: Endpoints

    def __init__(
        self,
        *,
        store: StoreKind,
        dedup: bool,
        clock: Callable[[], float],
        journal: Path | None,
        invoice_delay_s: float = 0,
    ) -> None:
        self._clock = clock
        self._invoice_delay_us = round(invoice_delay_s * SECOND_US)
        self._kind: StoreKind = store
        self._dedup = dedup
        self._journal = Journal(journal)
        self._empty()
        for entry in self._journal.replay():
            self._replay(entry)

    def now_us(self) -> int:
        """The sandbox's clock, in microseconds."""
        return round(self._clock() * SECOND_US)

    def save_customer(self, sent: dict[str, Any]) -> SandboxCustomer:
        """See `SandboxCustomers.upsert`."""
        now_us = self.now_us()
        customer = self.customers.upsert(sent, now_us)
        self._journal.write("customer", now_us, sent)
        return customer

    def delete_customer(self, external_id: str) -> SandboxCustomer:
        """See `SandboxCustomers.delete`; its subscriptions end with it."""
        now_us = self.now_us()
        subscriptions = self.current_subscriptions(now_us)
        customer = self.customers.delete(external_id)
        subscriptions.end_all(customer, now_us)
        self._journal.write("delete_customer", now_us, {"external_id": external_id})
        return customer

    def add_metric(self, sent: dict[str, Any]) -> SandboxMetric:
        """See `SandboxMetrics.add`."""
        now_us = self.now_us()
        metric = self.metrics.add(sent, now_us)
        self._journal.write("metric", now_us, sent)
        return metric

    def add_plan(self, sent: dict[str, Any]) -> SandboxPlan:
        """See `SandboxPlans.add`."""
        now_us = self.now_us()
        plan = self.plans.add(sent, now_us)
        self._journal.write("plan", now_us, sent)
        return plan

    def subscribe(self, sent: dict[str, Any]) -> SandboxSubscription:
        """See `SandboxSubscriptions.create`."""
        now_us = self.now_us()
        subscription = self.current_subscriptions(now_us).create(sent, now_us)
        self._journal.write("subscribe", now_us, sent)
        return subscription

    def update_subscription(self, external_id: str, status: str | None, sent: dict[str, Any]) -> SandboxSubscription:
        """See `SandboxSubscriptions.update`."""
        now_us = self.now_us()
        subscription = self.current_subscriptions(now_us).update(external_id, status, sent, now_us)
        self._journal.write("update", now_us, {"external_id": external_id, "status": status, "sent": sent})
        return subscription

    def add_endpoint(self, sent: dict[str, Any]) -> dict[str, Any]:
        """See `Endpoints.add`."""
        now_us = self.now_us()
        endpoint = self.endpoints.add(sent, now_us)
        self._journal.write("endpoint", now_us, sent)
        return endpoint

    def current_invoices(self) -> list[SandboxInvoice]:
        """Every invoice made by now, oldest first."""
        now_us = self.now_us()
        self.subscriptions.advance(now_us)
        return self.invoices.up_to(now_us, self.events)

    def terminate(self, external_id: str, status: str | None, invoice: str | None = None) -> SandboxSubscription:
        """See `SandboxSubscriptions.terminate`."""
        now_us = self.now_us()
        subscription = self.current_subscriptions(now_us).terminate(external_id, status, now_us, invoice)
        self._journal.write("terminate", now_us, {"external_id": external_id, "status": status, "invoice": invoice})
        return subscription

    def offer(self, events: Sequence[Event]) -> None:
        """Note what is offered, whether or not it will be stored."""
        if conflicts := self.offers.note(events):
            self._journal.write("conflict", self.now_us(), conflicts)

    def accept(self, events: Sequence[Event]) -> list[int]:
        """See `EventStore.accept`: the refused indexes, empty when the batch is stored."""
        refused = self.events.accept(events)
        if not refused:
            self.offers.accepted(events)
            self._journal.write("events", self.now_us(), [_stored(event) for event in events])
        return refused

    def current_subscriptions(self, now_us: int) -> SandboxSubscriptions:
        """The subscriptions with everything done that is due by now."""
        self.subscriptions.advance(now_us)
        return self.subscriptions

    def reset(self) -> None:
        """Forget everything, the journal included."""
        self._journal.clear()
        self._empty()

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _empty(self) -> None:
        identifiers = Identifiers()
        self.customers = SandboxCustomers(identifiers)
        self.metrics = SandboxMetrics(identifiers)
        self.plans = SandboxPlans(identifiers, self.metrics)
        self.subscriptions = SandboxSubscriptions(identifiers, self.customers, self.plans, self._invoice_delay_us)
        log = EventLog(self.subscriptions.windows, self.subscriptions.in_time)
        self.events = PostgresStore(log) if self._kind == "postgres" else ClickhouseStore(log, dedup=self._dedup)
        self.offers = Offers(log)
        self.invoices = SandboxInvoices(self.subscriptions)
        self.endpoints = Endpoints(identifiers)
        self.posts = 0
        self.batches = 0

    def _replay(self, entry: Entry) -> None:
        self.subscriptions.advance(entry.at_us)
        match entry.op:
            case "events":
                self.events.accept([_restored(*stored) for stored in _events.decode(entry.body)])
                self.events.duplicates = 0
            case "conflict":
                self.offers.conflicts.update(_ids.decode(entry.body))
            case "customer":
                self.customers.upsert(_objects.decode(entry.body), entry.at_us)
            case "metric":
                self.metrics.add(_objects.decode(entry.body), entry.at_us)
            case "plan":
                self.plans.add(_objects.decode(entry.body), entry.at_us)
            case "subscribe":
                self.subscriptions.create(_objects.decode(entry.body), entry.at_us)
            case "terminate":
                sent = _objects.decode(entry.body)
                self.subscriptions.terminate(sent["external_id"], sent["status"], entry.at_us, sent.get("invoice"))
            case "delete_customer":
                customer = self.customers.delete(_objects.decode(entry.body)["external_id"])
                self.subscriptions.end_all(customer, entry.at_us)
            case "update":
                sent = _objects.decode(entry.body)
                self.subscriptions.update(sent["external_id"], sent["status"], sent["sent"], entry.at_us)
            case "endpoint":
                self.endpoints.add(_objects.decode(entry.body), entry.at_us)
            case _:
                raise ValueError(f"unknown entry in the journal: {entry.op}")


def _stored(event: Event) -> _Stored:
    properties = msgspec.Raw(event.properties)
    return (
        *(event.transaction_id, event.subscription, event.code, event.ts_us, event.cents),
        *(properties, event.received_us),
    )


def _restored(
    transaction_id: str,
    subscription: str | None,
    code: str,
    ts_us: int,
    cents: str | None,
    properties: msgspec.Raw,
    received_us: int,
) -> Event:
    return Event(transaction_id, subscription, code, ts_us, cents, bytes(properties), received_us)
