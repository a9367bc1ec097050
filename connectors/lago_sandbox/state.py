"""The sandbox's state. Every change passes through this class, which journals it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from connectors.lago_sandbox.customers import SandboxCustomer, SandboxCustomers
from connectors.lago_sandbox.identifiers import Identifiers
from connectors.lago_sandbox.invoices import SandboxInvoice, SandboxInvoices
from connectors.lago_sandbox.journal import Journal, JournalEntry
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
        posts, batches: requests to the events endpoints since the start, and the number of them to the batch endpoint,
            faults included.
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
        """Return the sandbox's clock, microseconds since 1970 UTC."""
        return round(self._clock() * SECOND_US)

    def save_customer(self, sent: dict[str, Any]) -> SandboxCustomer:
        """See `SandboxCustomers.upsert`."""
        customer: SandboxCustomer = self._change("customer", sent)
        return customer

    def delete_customer(self, external_id: str) -> SandboxCustomer:
        """See `SandboxCustomers.delete`; its subscriptions end with it."""
        customer: SandboxCustomer = self._change("delete_customer", {"external_id": external_id})
        return customer

    def add_metric(self, sent: dict[str, Any]) -> SandboxMetric:
        """See `SandboxMetrics.add`."""
        metric: SandboxMetric = self._change("metric", sent)
        return metric

    def add_plan(self, sent: dict[str, Any]) -> SandboxPlan:
        """See `SandboxPlans.add`."""
        plan: SandboxPlan = self._change("plan", sent)
        return plan

    def subscribe(self, sent: dict[str, Any]) -> SandboxSubscription:
        """See `SandboxSubscriptions.create`."""
        subscription: SandboxSubscription = self._change("subscribe", sent)
        return subscription

    def update_subscription(self, external_id: str, status: str | None, sent: dict[str, Any]) -> SandboxSubscription:
        """See `SandboxSubscriptions.update`."""
        request = {"external_id": external_id, "status": status, "sent": sent}
        subscription: SandboxSubscription = self._change("update", request)
        return subscription

    def terminate(self, external_id: str, status: str | None, invoice: str | None = None) -> SandboxSubscription:
        """See `SandboxSubscriptions.terminate`."""
        request = {"external_id": external_id, "status": status, "invoice": invoice}
        subscription: SandboxSubscription = self._change("terminate", request)
        return subscription

    def add_endpoint(self, sent: dict[str, Any]) -> dict[str, Any]:
        """See `Endpoints.add`."""
        endpoint: dict[str, Any] = self._change("endpoint", sent)
        return endpoint

    def current_invoices(self) -> list[SandboxInvoice]:
        """Return every invoice made by now, oldest first."""
        now_us = self.now_us()
        self.subscriptions.advance(now_us)
        return self.invoices.up_to(now_us, self.events)

    def offer(self, events: Sequence[Event]) -> None:
        """Record the events that were sent, stored or not."""
        if conflicts := self.offers.note(events):
            self._journal.write("conflict", self.now_us(), conflicts)

    def accept(self, events: Sequence[Event]) -> list[int]:
        """See `EventStore.accept`; return the refused indexes, empty when the batch is stored."""
        refused = self.events.accept(events)
        if not refused:
            self.offers.accepted(events)
            self._journal.write("events", self.now_us(), [_stored(event) for event in events])
        return refused

    def current_subscriptions(self, now_us: int) -> SandboxSubscriptions:
        """Return the subscriptions, after everything that is due by now was done."""
        self.subscriptions.advance(now_us)
        return self.subscriptions

    def reset(self) -> None:
        """Delete everything, the journal included."""
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

    def _change(self, op: str, sent: dict[str, Any]) -> Any:
        """Apply a request now and journal it; return the created object. Raises: SandboxRefusal: then nothing is
        journalled.
        """
        now_us = self.now_us()
        self.subscriptions.advance(now_us)
        made = self._apply(op, sent, now_us)
        self._journal.write(op, now_us, sent)
        return made

    def _replay(self, entry: JournalEntry) -> None:
        self.subscriptions.advance(entry.at_us)
        if entry.op == "events":
            self.events.accept(list(map(_restored, _events.decode(entry.body))))
            self.events.duplicates = 0
        elif entry.op == "conflict":
            self.offers.conflicts.update(_ids.decode(entry.body))
        else:
            self._apply(entry.op, _objects.decode(entry.body), entry.at_us)

    def _apply(self, op: str, sent: dict[str, Any], at_us: int) -> Any:
        """Apply the request `op` as of `at_us`: a new one, or one of the journal."""
        match op:
            case "customer":
                return self.customers.upsert(sent, at_us)
            case "delete_customer":
                customer = self.customers.delete(sent["external_id"])
                self.subscriptions.end_all(customer, at_us)
                return customer
            case "metric":
                return self.metrics.add(sent, at_us)
            case "plan":
                return self.plans.add(sent, at_us)
            case "subscribe":
                return self.subscriptions.create(sent, at_us)
            case "update":
                return self.subscriptions.update(sent["external_id"], sent["status"], sent["sent"], at_us)
            case "terminate":
                return self.subscriptions.terminate(sent["external_id"], sent["status"], at_us, sent.get("invoice"))
            case "endpoint":
                return self.endpoints.add(sent, at_us)
        raise ValueError(f"unknown entry in the journal: {op}")


def _stored(event: Event) -> _Stored:
    what = event.transaction_id, event.subscription, event.code, event.ts_us, event.cents
    return (*what, msgspec.Raw(event.properties), event.received_us)


def _restored(stored: _Stored) -> Event:
    transaction_id, subscription, code, ts_us, cents, properties, received_us = stored
    return Event(transaction_id, subscription, code, ts_us, cents, bytes(properties), received_us)
