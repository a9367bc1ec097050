"""The product, driven through a history in one process: the real rules, the real delivery, Lago's real sandbox.

Only what stands outside them is made here: Kafka (lists), the clock (the history's) and Postgres (a list that answers
as the usage log does). The turns of the worker and of the operator are steps of the history.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any

import msgspec

from connectors.http.ingress.storing import Store
from connectors.http.ingress.strip import strip
from connectors.kafka.producer import Record
from connectors.operations.letters import usage_of
from connectors.operations.requeue import checked
from connectors.orgs.truth import OrgTruth
from schemas.customers import CustomerRecord, OrgRecord
from schemas.errors import Rejected
from schemas.ledger import Position
from schemas.moments import parse_us, to_iso
from schemas.money import quantum
from schemas.policy import MeterPolicy
from schemas.records import EnrichedUsage, Rejection, WriteOff
from schemas.topics import TopicNames
from schemas.usage import Usage
from schemas.wire import BACKFILL, FLAT, SLP
from streams.agents.meter import MeterWork
from streams.changelog import _image, records_of, restore
from streams.core.alias import alias_of
from streams.core.backoff import RetryPolicy
from streams.core.batches import Item
from streams.core.books import Books, verify
from streams.core.breaker import Breaker
from streams.core.changes import Changes, apply
from streams.core.customer_key import CUSTOMER_ID_FIELDS
from streams.core.remap import Ending, MappingRequest, remap, unmap
from streams.delivery import Delivery
from streams.writes import CONTROL, WRITE_OFF, runs_of, writes_of
from tests.model.history import (
    BEGINS,
    ENDS,
    ORGS,
    TURN,
    TURNS,
    TYPO,
    Arrives,
    Away,
    Backfilled,
    Call,
    History,
    Mapped,
    Polled,
    Requeued,
    Restarted,
    Step,
    Subscribed,
    Terminated,
    Tick,
    Unmapped,
    WrittenOff,
)
from tests.model.lago import Clock, Lago, lago
from tests.support.virtual_time import VirtualLoop, virtual_now

replace = msgspec.structs.replace
LEAD_US = 5_000_000
SECOND_US = 1_000_000
TOPICS = TopicNames.with_prefix("")
_APART_US = 2000
#: Where a customer's id of a kind stands.
_FIELDS = {"end_user": "end_user", "user": "user_id"}


@dataclass
class Raw:
    """A record of the raw topic, as far as the meter reads it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class Table:
    """A follower of a compacted topic that is never behind."""

    table: dict[str, Any] = field(default_factory=dict)
    changes: int = 0

    @property
    def version(self) -> int:
        return self.changes

    async def start(self) -> None:
        """Read."""

    async def wait_fresh(self, limit_s: float) -> None:
        """Fresh."""

    async def change(self, key: str, make: Callable[[OrgRecord], OrgRecord]) -> OrgRecord:
        """As `OrgRecords` does."""
        self.put(key, make(self.table.get(key) or OrgRecord(key)))
        made: OrgRecord = self.table[key]
        return made

    def put(self, key: str, record: Any) -> None:
        """The topic's newest record of the key."""
        self.table[key] = record
        self.changes += 1


class Ledger:
    """`streams.ledger.Ledger` without Kafka: what a commit writes is kept, and the books are checked after each."""

    partition = 0

    def __init__(self, clock: Clock, topics: dict[str, list[Any]], changelog: dict[bytes, bytes | None]) -> None:
        self._clock = clock
        self._topics = topics
        self._changelog = changelog
        self.books = Books(Position(topic_id="t", partitions=1, deployment="d"))

    async def open(self) -> Books:
        """Read the changelog to its end."""
        restore(self.books, _image(0, self._changelog), self._clock.us())
        verify(self.books)
        return self.books

    async def commit(self, changes: Changes) -> None:
        """As in one transaction."""
        self._changelog.update(records_of(changes))
        for write in writes_of(changes, TOPICS, self.partition):
            self._topics.setdefault(write.topic, []).append(write)
        for run in runs_of(changes, TOPICS, self.partition):
            self._topics.setdefault(run.topic, []).extend(run.records)
        apply(self.books, changes, self._clock.us())
        verify(self.books)

    async def close(self) -> None:
        """Gone."""

    def in_transaction(self) -> bool:
        """Never."""
        return False


class Silent:
    """Sensors."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_: None


@dataclass
class Billed:
    """What came of a history; money in dollars, but for `invoices`, which are in whole cents.

    Fields:
        invoices: by org, subscription, month (`2026-04`) and metric.
        sealed: all that became events. held: by customer. late: calls, by id, that wait to be put back.
    """

    invoices: dict[tuple[str, str, str, str], int]
    sealed: Decimal
    held: dict[str, Decimal]
    written_off: Decimal
    late: set[str]


class Product:
    """A deployment; `live` runs a history through it."""

    def __init__(self, clock: Clock, lago: Lago) -> None:
        self.clock = clock
        self.lago = lago
        self.topics: dict[str, list[Any]] = {}
        self.raw: list[Raw] = []
        self.customers, self.orgs = Table(), Table()
        self.truth = OrgTruth(
            self.customers.table,
            self.orgs.table,
            self.orgs,
            lago.client,
            now_us=clock.us,
            is_org=lambda name: name.startswith("org_"),
        )
        self.ingress = Store(self, "raw", "rejected", CUSTOMER_ID_FIELDS, clock.us)
        retries = RetryPolicy(random=Random(1).random)
        self.delivery = Delivery(
            lago.client,
            concurrency=asyncio.Semaphore(4),
            breaker=Breaker(retries, virtual_now()),
            policy=retries,
            clock=virtual_now,
            sleep=asyncio.sleep,
            on_request=lambda *_: None,
        )
        self.changelog: dict[bytes, bytes | None] = {}
        self.polls = 0
        self.away = False
        self.posted = 0
        self.back = 0
        self.policy = MeterPolicy(deployment="d")

    async def start(self, policy: MeterPolicy) -> None:
        """A worker begins, or takes over from one that is gone."""
        self.policy = policy
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
        )
        await self.work.open()

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        """Kafka takes what the ingress sends, and the meter folds it."""
        await self.fold([(key or "", value) for topic, key, value, _ in records if topic == "raw"])
        return {}

    async def fold(self, stored: Sequence[tuple[str, bytes]], headers: tuple[tuple[str, bytes], ...] = ()) -> None:
        """Records reach the raw topic now, and the meter at once."""
        chunk = [
            Raw(len(self.raw) + number, self.clock.us() // 1000, key.encode(), value, headers)
            for number, (key, value) in enumerate(stored)
        ]
        self.raw += chunk
        if chunk:
            await self.work.process(chunk)  # type: ignore[arg-type]

    async def take(self, step: Step) -> None:
        """One step of the history."""
        self.clock.now = step.at
        match step:
            case Arrives():
                await self.ingress.keep(body_of(step.call), SLP, ())
            case Polled():
                self.polls += 1
                await self.ingress.keep(poll_of(step, self.polls), SLP, ())
            case Backfilled():
                await self.backfill(step.call)
            case Requeued():
                await self.requeue()
            case Mapped():
                request = MappingRequest(
                    step.customer,
                    step.org,
                    "tenant",
                    id_kind=step.kind,
                    external_subscription_id=step.named,
                )
                known = self.customers.table.get(step.customer)
                self.customers.put(step.customer, remap(known, request, self.clock.us(), LEAD_US))
            case Unmapped():
                known: CustomerRecord | None = self.customers.table.get(step.customer)
                if known is not None:
                    self.customers.put(step.customer, unmap(known, Ending(step.deleted), self.clock.us(), LEAD_US))
            case Subscribed():
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
                    await self.orgs.change(step.org, lambda org: replace(org, subscription_id=step.subscription))
                await self.truth.refresh(step.org)
            case Terminated():
                gone = await self.lago.http.delete(f"/api/v1/subscriptions/{step.subscription}")
                if gone.status_code == 200:
                    await self.truth.refresh(step.org)
            case WrittenOff():
                order = WriteOff("audit", self.clock.us(), self.clock.us())
                await self.fold([(step.customer, msgspec.json.encode(order))], ((CONTROL, WRITE_OFF),))
            case Away():
                self.away = step.away
            case Restarted():
                await self.start(policy_of(step))
            case Tick():
                for turn in range(TURNS):
                    self.clock.now = step.at + turn * TURN
                    await self.work.tick()
                await self.post()

    async def post(self) -> None:
        """What lies in the events topic goes to Lago."""
        events = self.topics.get(TOPICS.events, [])
        if self.away or len(events) == self.posted:
            return
        items = [
            Item(msgspec.json.decode(write.value)["transaction_id"], write.value, False)
            for write in events[self.posted :]
        ]
        outcomes = await self.delivery.deliver(items)
        assert {outcome.kind for outcome in outcomes} == {"delivered"}, outcomes
        self.posted = len(events)

    async def backfill(self, call: Call) -> None:
        """As `connectors.operations.backfill` does, which asks Postgres: here the enriched topic answers."""
        stripped = strip(row_of(call), FLAT, self.clock.us(), CUSTOMER_ID_FIELDS, source=BACKFILL)
        assert stripped is not None
        await self.back_again([stripped])

    async def requeue(self) -> None:
        """As `connectors.operations.requeue` does."""
        waiting = self.topics.get(TOPICS.rejected, [])[self.back :]
        self.back += len(waiting)
        letters = [(key, msgspec.json.decode(value, type=Rejection)) for key, value in waiting]
        await self.back_again([(key.decode(), bytes(letter.call)) for key, letter in letters])  # type: ignore[arg-type]

    async def back_again(self, calls: Sequence[tuple[str, bytes]]) -> None:
        """Those that the log does not know go to the raw topic."""
        for key, value in calls:
            usage = usage_of(value, key, quantum(self.policy.cost_decimals))
            assert usage is not None
            if not self.known(usage):
                await self.fold([(key, checked(value, self.clock.us()))])

    def known(self, usage: Usage) -> bool:
        """The question of `connectors.operations.usage_log.known`, asked of the enriched topic."""
        alias = alias_of(usage.call_id, usage.request_id)
        return any(
            row.identity == usage.identity.hex()
            or (
                alias_of(row.call_id, row.request_id) == alias
                and abs(parse_us(row.start) - usage.start_us) <= _APART_US
            )
            for row in (
                msgspec.json.decode(value, type=EnrichedUsage) for _, value in self.topics.get(TOPICS.enriched, [])
            )
        )

    async def billed(self) -> Billed:
        """After the last invoice."""
        invoices: dict[tuple[str, str, str, str], int] = {}
        for listed in await self.lago.client.invoices():
            invoice = await self.lago.client.invoice(listed.lago_id)
            assert invoice is not None and invoice.customer is not None
            for fee in invoice.fees:
                if fee.item.type == "charge" and fee.amount_cents:
                    month, subscription = (fee.from_date or "")[:7], fee.external_subscription_id or ""
                    key = invoice.customer.external_id, subscription, month, fee.item.code
                    invoices[key] = invoices.get(key, 0) + fee.amount_cents
        books, held = self.ledger.books, dict[str, Decimal]()
        for window in books.windows.values():
            held[window.customer_id] = held.get(window.customer_id, Decimal(0)) + window.cost
        counters = books.position.counters
        late = [
            msgspec.json.decode(value, type=Rejection) for _, value in self.topics.get(TOPICS.rejected, [])[self.back :]
        ]
        ids = {msgspec.json.decode(bytes(letter.call))["call"]["litellm_call_id"] for letter in late}  # type: ignore[arg-type]
        return Billed(invoices, counters.sealed.cost, held, counters.written_off.cost, ids)


def policy_of(step: Restarted) -> MeterPolicy:
    """The settings that a worker is started with."""
    return MeterPolicy(
        deployment="d", window_us=step.window * SECOND_US, group_by=step.group_by, cost_decimals=step.decimals
    )


def live(history: History) -> Billed:
    """Run a history, and time on until everything that can be invoiced is."""

    async def living() -> Billed:
        clock = Clock(BEGINS)
        async with lago(clock, (*ORGS, TYPO)) as sandbox:
            product = Product(clock, sandbox)
            await product.start(product.policy)
            for step in history:
                await product.take(step)
            clock.now = ENDS
            return await product.billed()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(living())


def body_of(call: Call) -> bytes:
    """As LiteLLM's callback sends it."""
    return _encoded(call, f"call-{call.number}-{call.ended}", "acompletion", response_cost=call.cost, metadata={})


def poll_of(step: Polled, number: int) -> bytes:
    """A poll of a job has a call id and moments of its own, and the job's `id`."""
    call = Call(step.job, step.at - 1, step.cost)
    return _encoded(
        call, f"poll-{number}", "aretrieve_batch", f"batch-{step.job}", response_cost=call.cost, metadata={}
    )


def row_of(call: Call) -> bytes:
    """As LiteLLM's database has it: times cut to the millisecond, a cost that is never null."""
    return _encoded(call, f"call-{call.number}-{call.ended}", "acompletion", spend=call.cost or "0")


def _encoded(call: Call, call_id: str, call_type: str, request_id: str = "", **fields: Any) -> bytes:
    named = {
        "team_id": f"team-{call.number % 2}",
        "user_id": f"user-{call.number % 2}",
        _FIELDS[call.kind]: call.customer,
    }
    element = {
        "id": request_id or f"chatcmpl-{call_id}",
        "litellm_call_id": call_id,
        "call_type": call_type,
        "status": "success",
        "model": "gpt-4o" if call.number % 2 else "claude",
        "custom_llm_provider": "openai",
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "startTime": to_iso((call.ended - 1) * SECOND_US),
        "endTime": to_iso(call.ended * SECOND_US),
        **named,
        **{
            name: msgspec.Raw(value.encode()) if name in ("response_cost", "spend") and value else value
            for name, value in fields.items()
        },
    }
    return msgspec.json.encode(element)
