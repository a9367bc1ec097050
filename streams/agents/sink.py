"""The work of the sink and the retry role on one partition: post events, then make their results durable.

No transaction is open during a post. If the process dies between Lago's answer and the commit, the next owner posts the
same bytes again, and Lago refuses them by their unique key (docs/lago-behaviour.md).
"""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiokafka import ConsumerRecord, TopicPartition

from schemas.customers import OrgRecord
from schemas.errors import TopicProblem
from schemas.moments import SECOND_US
from schemas.organizations import DEFAULT
from schemas.policy import MeterPolicy, OutOfPeriodPolicy
from schemas.record_sizes import short_key
from schemas.records import DeliveryAttempt, LagoEvent, Receipt
from schemas.topics import TopicNames
from streams.agents.received_event import ReceivedEvent
from streams.agents.traces import DeliveryTraces
from streams.core.delivery import dead_letter_headers
from streams.core.delivery.backoff import retry_delay, tier_of
from streams.core.delivery.dead_letter_headers import RecordOrigin
from streams.core.delivery.earlier_posts import went_elsewhere
from streams.core.delivery.restamp import RestampDecision, restamp_decision
from streams.core.metering.event_owner import belongs_to, deployment_named
from streams.delivery.engine import EventOutcome, Item
from streams.delivery.lago_port import PostRecord
from streams.delivery.to_an_organization import EventDelivery
from streams.runtime.compacted_table import CompactedTable
from streams.runtime.offsets import standing
from streams.runtime.transactions import TransactionalWriter, Write
from streams.state.step_writes import attempt_write, receipt_write

#: The most events that are posted and settled in one transaction.
SETTLE_LIMIT = 500
#: The most posts that are recorded with them, the latest ones: an outage may last for days.
ATTEMPTS_KEPT = 1000
#: The least time between two commits of an offset alone, microseconds.
PASSED_EVERY_US = 10 * SECOND_US


class SinkSensors(Protocol):
    """What the sink reports."""

    def settled(self, receipts: Sequence[Receipt]) -> None: ...


@dataclass(frozen=True, slots=True)
class DeliveryConfig:
    """What all partitions of the sink or of the retry role have in common.

    Fields:
        kafka: connection options for aiokafka.
        topics: the catalogue's names with their prefix.
        group: the role's consumer group, and the beginning of its transactional ids.
        max_retries: attempts in the retry topic before an event becomes a dead letter.
        retry_base_s: the wait before the first of them, seconds.
        mapping_delay_s: age of the orgs' table, in seconds, above which delivery waits for a younger view.
        organization: the Lago organisation whose events are posted; `""` = the default one.
        random: uniform in `[0, 1)`.
        now_us: the wall clock, microseconds since 1970 UTC.
    """

    kafka: Mapping[str, Any] = field(repr=False)
    topics: TopicNames
    group: str
    policy: MeterPolicy
    max_retries: int
    retry_base_s: float
    mapping_delay_s: float
    random: Callable[[], float]
    now_us: Callable[[], int]
    sleep: Callable[[float], Awaitable[None]]
    organization: str = DEFAULT


class DeliveryWork:
    """`streams.runtime.partition_task.PartitionProcessor` of both posting roles.

    `sink` reads the events topic, `retry` one tier of the retry topic. Events of other Lago organisations are passed
    over: each organisation has a consumer group of its own, and its events wait for that (streams/agents/organization_lanes.py).
    """

    def __init__(
        self,
        tp: TopicPartition,
        config: DeliveryConfig,
        delivery: EventDelivery,
        orgs: CompactedTable[OrgRecord],
        sensors: SinkSensors,
        traces: DeliveryTraces | None = None,
    ) -> None:
        self._tp = tp
        self._config = config
        self._topics = config.topics
        self._now_us = config.now_us
        self._delivery = delivery
        self._orgs = orgs
        self._sensors = sensors
        self._delivering = _untraced if traces is None else traces.delivering
        self._writer: TransactionalWriter | None = None
        self._maybe_sent_below = 0
        self._suspect_below = 0
        self._attempts: deque[DeliveryAttempt] = deque(maxlen=ATTEMPTS_KEPT)
        self._following: Callable[[], ReceivedEvent | None] = lambda: None
        self._passing: Callable[[str], Awaitable[None]] = _pass
        self._passed_to = 0
        self._committed_us = 0

    async def open(self) -> int:
        """Fence the previous owner, then read the group's offset: the offset expected next.

        Raises:
            TopicProblem: `offset_out_of_range`: the topic has lost events that the group has not posted.
        """
        await self._orgs.start()
        self._writer = TransactionalWriter(
            self._config.kafka, f"{self._config.group}-{self._tp.topic}-{self._tp.partition}"
        )
        await self._writer.start()
        offsets = await standing(self._config.kafka, self._config.group, self._tp)
        # A further organisation has no events that are older than the topic's first one when it is added.
        first = offsets.begin if self._config.organization else 0
        following = first if offsets.committed is None else offsets.committed
        if self._config.organization:  # Kafka keeps it for 7 days from here, also while the lane is halted
            await self._writer.commit([], self._tp, following, self._config.group)
        offsets.check(self._tp, following)
        self._passed_to = 0
        # An earlier owner may have posted any event up to here.
        self._maybe_sent_below = offsets.end
        return following

    async def process(self, records: Sequence[ConsumerRecord]) -> int:
        """Post this organisation's events in order of arrival, in transactions of at most `SETTLE_LIMIT` events.

        Events that fail while others wait behind them are given back, to be posted together with those.
        """
        return await self.process_received([ReceivedEvent(record) for record in records])

    async def process_received(self, received: Sequence[ReceivedEvent]) -> int:
        """See `process`; what a caller has decoded is not decoded again."""
        own = await self._own(received)
        done, next_offset = 0, int(received[-1].record.offset) + 1
        while done < len(own):
            ready = await self._ready(own[done : done + SETTLE_LIMIT])
            settled, told = self._delivering([one.record for one in ready]), list[EventOutcome]()
            try:
                outcomes = await self._deliver(ready)
                if not outcomes:
                    self._suspect_below = ready[-1].record.offset + 1
                    return int(ready[0].record.offset)
                done += len(ready)
                await self._settle(ready, outcomes, int(own[done].record.offset) if done < len(own) else next_offset)
                told = outcomes
            finally:
                settled(told)
        if not own:
            self._passed_to = next_offset
            await self.punctuate()
        return next_offset

    def look_behind(self, following: Callable[[], ConsumerRecord | None]) -> None:
        """See `streams.runtime.partition_task.LooksBehind`."""

        def received() -> ReceivedEvent | None:
            record = following()
            return None if record is None else ReceivedEvent(record)

        self.look_behind_received(received)

    def look_behind_received(self, following: Callable[[], ReceivedEvent | None]) -> None:
        """See `look_behind`; what a caller has decoded is not decoded again."""
        self._following = following

    def before_passing(self, passing: Callable[[str], Awaitable[None]]) -> None:
        """Set `passing`, which is awaited with an organisation's name before its events are passed over."""
        self._passing = passing

    async def punctuate(self) -> None:
        """Commit the offset from time to time where only events of other organisations came: else it would leave the
        topic's retention one day.
        """
        if self._passed_to and self._writer is not None and self._now_us() - self._committed_us >= PASSED_EVERY_US:
            await self._writer.commit([], self._tp, self._passed_to, self._config.group)
            self._passed_to, self._committed_us = 0, self._now_us()

    async def close(self) -> None:
        """Stop the producer."""
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.stop()

    def in_transaction(self) -> bool:
        """Return whether closing has to wait for a transaction."""
        return self._writer is not None and self._writer.busy

    async def _ready(self, received: Sequence[ReceivedEvent]) -> Sequence[ReceivedEvent]:
        """Return the leading events that may be posted now; waits for the first. Events without a wait all may."""
        first_ms = received[0].due_ms
        while (now_ms := self._now_us() // 1000) < first_ms:
            await self._config.sleep(min((first_ms - now_ms) / 1000, 5.0))
        for number, one in enumerate(received):
            if one.due_ms > now_ms:
                return received[:number]
        return received

    async def _deliver(self, received: Sequence[ReceivedEvent]) -> list[EventOutcome]:
        """Outcomes in order; a record that is no event becomes a dead letter.

        Returns:
            An empty list where they are given back.

        Raises:
            TopicProblem: `other_deployment`: only the sink of the deployment that sealed an event posts it. Nothing was
                posted.
        """
        await self._orgs.wait_fresh(self._config.mapping_delay_s)
        items: list[Item] = []
        places: list[int] = []
        outcomes = [EventOutcome("dead", "malformed", "the record is no event", 0)] * len(received)
        for place, one in enumerate(received):
            record, event, history = one.record, one.event, one.history
            if event is not None and not one.is_outsized and self._is_whole(one, event):
                suspect = record.offset < self._suspect_below
                resent = suspect or record.offset < self._maybe_sent_below or history.maybe_sent
                elsewhere = (resent or history.compare) and self._went_elsewhere(record.value)
                items.append(Item(event.transaction_id, record.value, resent, history.compare, suspect, elsewhere))
                places.append(place)
        self._attempts.clear()
        delivered = await self._delivery.deliver(
            items, self._posted, self._judge, lambda: self._others_wait(len(received))
        )
        if len(delivered) < len(items):
            return []
        for place, outcome in zip(places, delivered, strict=True):
            outcomes[place] = outcome
        return outcomes

    def _judge(self, value: bytes) -> RestampDecision:
        return restamp_decision(value, *self._judged_by())

    def _went_elsewhere(self, value: bytes) -> bool:
        return went_elsewhere(value, *self._judged_by())

    def _judged_by(self) -> tuple[Mapping[str, OrgRecord], OutOfPeriodPolicy, int, str, str]:
        policy, organization = self._config.policy, self._config.organization
        return self._orgs.table, policy.out_of_period_policy, self._now_us(), policy.event_code, organization

    def _others_wait(self, count: int) -> bool:
        """Return whether another event could be posted together with these `count`."""
        behind = self._following() if count < SETTLE_LIMIT else None
        if behind is None:
            return False
        return self.is_own(behind) and behind.due_ms <= self._now_us() // 1000

    def is_own(self, received: ReceivedEvent) -> bool:
        """Return whether this work deals with the event: its record says so, whatever is configured."""
        return received.organization == self._config.organization

    async def _own(self, received: Sequence[ReceivedEvent]) -> list[ReceivedEvent]:
        own: list[ReceivedEvent] = []
        for one in received:
            if self.is_own(one):
                own.append(one)
            else:
                await self._passing(one.organization)
        return own

    def _posted(self, posted: PostRecord) -> None:
        self._attempts.append(
            DeliveryAttempt(
                self._now_us(),
                "out",
                "events.batch",
                posted.status,
                round(posted.seconds * 1000),
                posted.error,
                posted.attempt,
                posted.events,
                posted.first,
                posted.last,
                f"{self._tp.topic}-{self._tp.partition}",
            )
        )

    def _is_whole(self, received: ReceivedEvent, event: LagoEvent) -> bool:
        """Return whether the manifest fits the event: the deployment that it names can be the event's
        (streams/core/metering/event_owner.py), and an organisation has a name.

        Raises:
            TopicProblem: `other_deployment`.
        """
        manifest, record, own = received.manifest, received.record, self._config.policy.deployment
        if manifest is not None and manifest.organization != received.organization:
            return False
        if manifest is None or manifest.deployment in ("", own):
            return True
        if belongs_to(manifest.deployment, event.transaction_id, deployment_named(event)) is False:
            return False
        place = f"{record.topic}-{record.partition} at {record.offset}"
        raise TopicProblem("other_deployment", f"{place} belongs to {manifest.deployment}")

    async def _settle(
        self, received: Sequence[ReceivedEvent], outcomes: Sequence[EventOutcome], next_offset: int
    ) -> None:
        if self._writer is None:
            raise TopicProblem("not_open", "a closed partition was settled")
        writes: list[Write] = []
        receipts: list[Receipt] = []
        for one, outcome in zip(received, outcomes, strict=True):
            attempt = one.history.attempt + (outcome.kind != "delivered")
            status = self._status(outcome, attempt)
            if one.event is not None:
                receipts.append(self._receipt(one, one.event, outcome, status, attempt))
                writes.append(receipt_write(self._topics, receipts[-1]))
            if status != "completed":
                writes.append(self._onward(one, outcome, status, attempt))
        writes += [attempt_write(self._topics, attempt) for attempt in self._attempts]
        await self._writer.commit(writes, self._tp, next_offset, self._config.group)
        self._passed_to, self._committed_us = 0, self._now_us()
        self._sensors.settled(receipts)

    def _status(self, outcome: EventOutcome, attempt: int) -> str:
        if outcome.kind == "delivered":
            return "completed"
        return "processing" if outcome.kind == "retry" and attempt <= self._config.max_retries else "failed"

    def _receipt(
        self, received: ReceivedEvent, event: LagoEvent, outcome: EventOutcome, status: str, attempt: int
    ) -> Receipt:
        return Receipt(
            event.transaction_id,
            status,
            self._now_us(),
            outcome.subscription or event.external_subscription_id,
            event.precise_total_amount_cents,
            received.calls,
            attempt,
            "" if status == "completed" else outcome.reason,
            outcome.timestamp,
            outcome.maybe_sent if status == "failed" else None,
        )

    def _onward(self, received: ReceivedEvent, outcome: EventOutcome, status: str, attempt: int) -> Write:
        """Return the record for its tier of the retry topic, or for the dead letters; key, value and other programs'
        headers unchanged. The dead letter of an outsized record has none of them, and names its place.
        """
        record = received.record
        worker = f"{DeliveryWork.__module__}.{DeliveryWork.__qualname__}"
        place = RecordOrigin(self._tp.topic, self._tp.partition, record.offset, self._config.group, worker)
        if received.is_outsized:
            return Write(
                self._topics.dlq, 0, short_key(record.key), None, dead_letter_headers.dead([], place, outcome, attempt)
            )
        if status == "failed":
            headers = dead_letter_headers.dead(record.headers, place, outcome, attempt)
            return Write(self._topics.dlq, 0, record.key, record.value, headers)
        wait_s = retry_delay(attempt, self._config.retry_base_s, jitter=self._config.random())
        not_before_ms = self._now_us() // 1000 + round(wait_s * 1000)
        headers = dead_letter_headers.waiting(record.headers, place, outcome, attempt, not_before_ms)
        return Write(self._topics.retry, tier_of(attempt) - 1, record.key, record.value, headers)


def _untraced(_records: Sequence[ConsumerRecord]) -> Callable[[Sequence[EventOutcome]], None]:
    """Record no spans."""
    return _record_nothing


def _record_nothing(_outcomes: Sequence[EventOutcome]) -> None:
    """End no spans."""


async def _pass(_organization: str) -> None:
    """Wait for nothing."""
