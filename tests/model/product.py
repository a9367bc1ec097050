"""The product, run through a history in one process: the real rules, the real delivery, Lago's real sandbox.

Only what surrounds them is replaced: Kafka (by lists), the clock (by the history's) and Postgres (by a list that
answers like the usage log). The turns of the worker and of the operator are steps of the history.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from random import Random
from typing import Any

import msgspec
from aiokafka import TopicPartition

from connectors.billing.mapping_retention import MappingRetention
from connectors.billing.mappings import Mappings
from connectors.billing.metered_events import InMemoryUsage, metered
from connectors.billing.org_accounts import OrgAccounts, OrgRequest
from connectors.billing.org_billing import OrgBilling
from connectors.billing.org_sync import OrgSynchroniser
from connectors.billing.subscription_discovery import SubscriptionDiscovery
from connectors.billing.subscription_id_store import InMemoryIds
from connectors.billing.usage_recorder import record_of
from connectors.ingest.raw_record import strip
from connectors.ingest.store import ElementStore
from connectors.kafka.producer import Record
from connectors.operations.dead_letters import usage_of
from connectors.operations.pricing import as_counted
from connectors.operations.requeue import checked
from schemas.errors import Rejected
from schemas.moments import SECOND_US, to_iso
from schemas.policy import MeterPolicy
from schemas.records import Rejection, WriteOff
from schemas.rounding import quantum
from schemas.wire import BACKFILL, FLAT, SLP, RawRecord
from streams.agents.meter import MeterWork
from streams.agents.sink import DeliveryConfig, DeliveryWork
from streams.core.delivery.backoff import RetryPolicy
from streams.core.delivery.circuit_breaker import Breaker
from streams.core.mapping.set_mapping import KEEP_US, EndMappingRequest, MappingRequest
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.delivery.engine import Delivery
from streams.runtime.forwarding import Forwarder
from streams.state.step_writes import CONTROL, WRITE_OFF
from tests.model import history as h
from tests.model.lago import Clock, Lago
from tests.model.litellm import body_of, job_row_of, poll_of, row_of
from tests.model.log import Log
from tests.model.operator_files import card_of, policy_of
from tests.model.stand_ins import TOPICS, Ledger, Orgs, Raw, Silent, Table, Writer
from tests.support.virtual_time import VirtualLoop, virtual_now

LEAD_US = h.LEAD * SECOND_US
_replace = msgspec.structs.replace


@dataclass
class Billed:
    """The results of a history; money in dollars, except `invoices`, which are in whole cents.

    Fields:
        invoices: by org, subscription, month (`2026-04`) and metric.
        sealed: all that became events. held: by customer. dead (letters of the sink): by org. late: calls, by id, that wait to be put back.
        margin: what the sealed events bill beyond their cost.
        unclear: by org, what may be on a last invoice or not: it is named, and a person decides.
    """

    invoices: dict[tuple[str, str, str, str], int]
    sealed: Decimal
    held: dict[str, Decimal]
    dead: dict[str, Decimal]
    written_off: Decimal
    late: set[str]
    unclear: dict[str, Decimal]
    margin: Decimal


class Product:
    """A deployment; `live` runs a history through it."""

    def __init__(self, clock: Clock, lago: Lago) -> None:
        self.clock = clock
        self.lago = lago
        self.topics: dict[str, list[Any]] = {}
        self.raw: list[Raw] = []
        self.customers, self.orgs, self.rate_cards = Table(), Orgs(clock), Table()
        self.truth = OrgSynchroniser(
            self.customers.table,
            self.orgs.table,
            self.orgs,
            lago.client,
            now_us=clock.us,
            is_org=lambda name: name.startswith("org_"),
        )
        self.ingress = ElementStore(self, "raw", "rejected", CUSTOMER_ID_FIELDS, clock.us)
        self.sink = _sink(clock, lago, self.orgs, self.topics)
        self.discovery = SubscriptionDiscovery(
            self.customers.table, self.orgs.table, self.orgs, lago.client, now_us=clock.us
        )
        self.mappings = Mappings(
            self.customers,  # type: ignore[arg-type]
            self.orgs,  # type: ignore[arg-type]
            self.customers,  # type: ignore[arg-type]
            self.discovery,
            mapping_delay_us=LEAD_US,
            keep_us=KEEP_US,
            now_us=clock.us,
            event_code=h.USAGE,
        )
        self.forgetting = MappingRetention(
            self.customers.table,
            self.customers,  # type: ignore[arg-type]
            lago.client.customer,
            clock.us,
            asyncio.sleep,
        )
        billing = OrgBilling(lago.client, InMemoryIds(), InMemoryUsage(), now_us=clock.us)
        self.accounts = OrgAccounts(billing, self.orgs, clock.us)
        self.log = Log(clock, lago, self.topics)
        self.changelog: dict[bytes, bytes | None] = {}
        self.polls = 0
        self.away = False
        self.posted = 0
        self.back = 0
        self.left: list[tuple[str, bytes]] = []
        self.policy = MeterPolicy(deployment="d")

    async def start(self, policy: MeterPolicy) -> None:
        """A worker starts, or takes over from an earlier one."""
        self.policy = policy
        self.sink._config = replace(self.sink._config, policy=policy)
        self.ledger = Ledger(self.clock, self.topics, self.changelog)
        self.work = MeterWork(
            self.ledger,  # type: ignore[arg-type]
            self.customers,  # type: ignore[arg-type]
            self.orgs,  # type: ignore[arg-type]
            policy,
            "t",
            5.0,
            self.clock.us,
            Silent(),
            self.rate_cards,  # type: ignore[arg-type]
            Forwarder({}, "raw", 0),
        )
        await self.work.open()

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        """Kafka accepts what the ingress sends, and the meter folds it."""
        await self.fold([(key or "", value) for topic, key, value, _ in records if topic == "raw"])
        return {}

    async def fold(self, stored: Sequence[tuple[str, bytes]], headers: tuple[tuple[str, bytes], ...] = ()) -> None:
        """Records reach the raw topic now, and the meter at once."""
        fetch_batch = [
            Raw(len(self.raw) + number, self.clock.us() // 1000, key.encode(), value, headers)
            for number, (key, value) in enumerate(stored)
        ]
        self.raw += fetch_batch
        if fetch_batch:
            await self.work.process(fetch_batch)  # type: ignore[arg-type]
            await self.post()

    async def take(self, step: h.Step) -> None:
        """Execute one step of the history."""
        self.clock.now = step.at
        match step:
            case h.Arrives():
                await self.ingress.keep(body_of(step.call), SLP)
            case h.Polled():
                self.polls += 1
                await self.ingress.keep(poll_of(step, self.polls), SLP)
            case h.Backfilled():
                await self.backfill(row_of(step.call))
            case h.BackfilledJob():
                await self.backfill(job_row_of(step))
            case h.Recorded():
                event = metered(step.org, h.SEARCHES, f"{step.org}-s-{step.number}", {}, step.ended, self.clock.us())
                self.discovery.named(step.org)
                _, key, value, _ = record_of(event, "", self.clock.us())
                await self.fold([(key or "", value)])
            case h.Requeued():
                await self.requeue()
            case h.Put(card=card):
                await self.rate_cards.change(card.name, lambda _: card_of(card, self.clock.us()))
            case h.Mapped():
                request = MappingRequest(
                    step.customer,
                    step.org,
                    "tenant",
                    id_kind=step.kind,
                    external_subscription_id=step.named,
                    effective_from=step.begins * SECOND_US or None,
                    correct=False,
                )
                with suppress(Rejected):
                    await self.mappings.put(request)
            case h.Unmapped():
                await self.mappings.end(step.customer, EndMappingRequest(step.deleted))
            case h.Subscribed():
                await self.lago.save(
                    "/subscriptions",
                    subscription={
                        "external_customer_id": step.org,
                        "plan_code": step.plan,
                        "external_id": step.subscription,
                        "subscription_at": to_iso((step.at - step.days_ago * 86_400) * SECOND_US),
                    },
                )
                if step.own:
                    await self.orgs.change(step.org, lambda org: _replace(org, subscription_id=step.subscription))
                await self.learn(step.org, step.way)
            case h.Terminated():
                await self.lago.terminate(step.subscription)
                if not step.slow:
                    self.lago.count(step.subscription)
                await self.learn(step.org, step.way)
            case h.Counted():
                self.lago.count(step.subscription)
            case h.Learnt():
                await self.learn(step.org, step.way)
            case h.Pruned():
                self.log.prune(self.clock.us())
            case h.WrittenOff():
                order = WriteOff("audit", self.clock.us(), self.clock.us())
                await self.fold([(step.customer, msgspec.json.encode(order))], ((CONTROL, WRITE_OFF),))
            case h.Away():
                self.away = step.away
                await self.post()
            case h.Restarted():
                await self.start(policy_of(step))
            case h.Tick():
                await self.forgetting.look()
                for turn in range(h.TURNS):
                    self.clock.now = step.at + turn * h.TURN
                    await self.work.punctuate()
                await self.post()
                if not self.away:
                    await self.log.rebill(self.orgs.table, self.policy)
                    await self.post()

    async def learn(self, org: str, way: str) -> None:
        """The orgs' records are updated from Lago's answers."""
        match way:
            case h.WEBHOOK:
                await self.truth.refresh(org)
            case h.ANSWER:
                await self.accounts.set_up(OrgRequest(org), _unaudited)
            case h.LEARNER:
                await self.discovery.learn(org)
            case h.POLL:
                await self.truth.poll()
                await self.discovery.discover_all()

    async def post(self) -> None:
        """The events in the topic are posted to Lago."""
        written = self.topics.get(TOPICS.events, [])[self.posted :]
        if self.away or not written:
            return
        at_ms = self.clock.us() // 1000
        records = [
            Raw(self.posted + n, at_ms, write.key, write.value, tuple(write.headers)) for n, write in enumerate(written)
        ]
        self.posted = await self.sink.process(records)  # type: ignore[arg-type]

    async def backfill(self, row: bytes) -> None:
        """Like `connectors.operations.backfill`, which asks Postgres: here the enriched topic answers."""
        stripped = strip(row, FLAT, self.clock.us(), CUSTOMER_ID_FIELDS, source=BACKFILL)
        assert stripped is not None
        await self.back_again([stripped])

    async def requeue(self) -> None:
        """Like `connectors.operations.requeue`."""
        calls = self.rejected()
        self.back, self.left = len(self.topics.get(TOPICS.rejected, [])), []
        self.left = await self.back_again(calls)

    async def back_again(self, calls: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Calls that the log does not know, or knows without the price that they have now, go to the raw topic; calls
        that it cannot decide about are returned.
        """
        unit, left = quantum(self.policy.cost_decimals), []
        for key, value in calls:
            usage = usage_of(value, key, unit)
            assert usage is not None
            found = self.log.judged(usage, self.policy)
            if found.refused:
                left.append((key, value))
            elif found.sendable:
                row = found.verdict.row
                again = (key.encode(), value) if row is None else as_counted(value, row, unit)
                await self.fold([(again[0].decode(), checked(again[1], self.clock.us()))])
        return left

    def rejected(self) -> list[tuple[str, bytes]]:
        """Calls that were too late to be counted without a check and are not requeued."""
        new = self.topics.get(TOPICS.rejected, [])[self.back :]
        result = [(key.decode(), msgspec.json.decode(value, type=Rejection)) for key, value in new]
        return [*self.left, *((key, bytes(one.call)) for key, one in result if one.reason == "beyond_horizon")]  # type: ignore[arg-type]

    async def billed(self) -> Billed:
        """The results after the last invoice."""
        invoices: dict[tuple[str, str, str, str], int] = {}
        self.lago.count()
        for listed in await self.lago.client.invoices():
            if not listed.fees_amount_cents:
                continue
            invoice = await self.lago.client.invoice(listed.lago_id)
            assert invoice is not None and invoice.customer is not None
            for fee in invoice.fees:
                if fee.item.type == "charge" and fee.amount_cents:
                    month, subscription = (fee.from_date or "")[:7], fee.external_subscription_id or ""
                    key = invoice.customer.external_id, subscription, month, fee.item.code
                    invoices[key] = invoices.get(key, 0) + fee.amount_cents
        state, held = self.ledger.state, dict[str, Decimal]()
        for window in state.windows.values():
            if window.cost:
                held[window.customer_id] = held.get(window.customer_id, Decimal(0)) + window.cost
        counters, margin = state.position.counters, state.position.margin
        dead, written_off = self.log.dead(), counters.written_off.cost
        return Billed(
            invoices, counters.sealed.cost, held, dead, written_off, self.late(), self.log.maybe_invoiced(), margin
        )

    def late(self) -> set[str]:
        """Calls that were too late to be counted without a check, and were not counted in another way."""
        stored = [msgspec.json.decode(value, type=RawRecord) for _, value in self.rejected()]
        names = {one.metered.transaction_id if one.metered else str(one.call.litellm_call_id) for one in stored}
        return names - {row.call_id or row.request_id for row in self.log.everything() if row.part}


def _sink(clock: Clock, lago: Lago, orgs: Table, topics: dict[str, list[Any]]) -> DeliveryWork:
    """The sink's work, with its writer already open."""
    retries = RetryPolicy(random=Random(1).random)
    delivery = Delivery(
        lago.client,
        concurrency=asyncio.Semaphore(4),
        breaker=Breaker(retries, virtual_now()),
        policy=retries,
        clock=virtual_now,
        sleep=asyncio.sleep,
        on_request=lambda *_: None,
    )
    config = DeliveryConfig(
        kafka={},
        topics=TOPICS,
        group="sink",
        policy=MeterPolicy(deployment="d"),
        max_retries=3,
        retry_base_s=1.0,
        mapping_delay_s=5.0,
        random=Random(2).random,
        now_us=clock.us,
        sleep=asyncio.sleep,
    )
    place = TopicPartition(TOPICS.events, 0)
    work = DeliveryWork(place, config, delivery, orgs, Silent())  # type: ignore[arg-type]
    work._writer = Writer(topics)  # type: ignore[assignment]
    return work


async def _unaudited(_before: object, _after: object) -> None:
    """A change without an audit line."""


@cache
def world() -> tuple[Clock, Lago]:
    """One sandbox for all histories: it is emptied before each."""
    clock = Clock(h.BEGINS)
    return clock, Lago(clock)


def live(history: h.History) -> Billed:
    """Run a history, and then advance time until everything that can be invoiced is."""

    async def living() -> Billed:
        clock, sandbox = world()
        clock.now = h.BEGINS
        await sandbox.begin()
        product = Product(clock, sandbox)
        await product.start(product.policy)
        for step in history:
            await product.take(step)
        clock.now = h.ENDS
        return await product.billed()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(living())
