"""The deliveries to further Lago organisations on one partition, beside the default one's (docs/adr/0044).

Each organisation has a lane: a consumer group, a transactional producer, a breaker and a rate limit of its own. A lane
reads the whole partition and posts its organisation's events, so an organisation that takes none stops its own lane only,
and its events wait where they are, in order. The partition's owner runs its lanes; they are fenced as it is.

An organisation that has orgs or events here and is not configured has a lane too. It stands at the first event of its
organisation and keeps its place, which Kafka would forget (docs/adr/0049).
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from schemas.customers import OrgRecord
from schemas.errors import TopicProblem, Unavailable
from streams.agents.received_event import ReceivedEvent
from streams.agents.sink import SETTLE_LIMIT, DeliveryConfig, DeliveryWork, SinkSensors
from streams.agents.traces import DeliveryTraces
from streams.delivery.to_an_organization import EventDelivery
from streams.runtime.cancellation import end, is_own_cancellation
from streams.runtime.compacted_table import CompactedTable
from streams.runtime.offsets import asking
from streams.runtime.partition_task import may_pass

log = structlog.get_logger(__name__)

T = TypeVar("T")
#: How long a broker may hold an empty fetch, milliseconds.
_HELD_MS = 500
#: The wait before a lane is opened again: after an error that may pass, and after one that a person has to end, seconds.
_AGAIN_S, _HALTED_S = 2.0, 60.0
#: After this time a lane is opened again, which commits its offset again, seconds.
_SESSION_S = 86_400.0
#: How long a session may exceed that time to finish a running post, seconds; longer than any wait for an answer of Lago.
_POST_S = 600.0
#: Records that are fetched ahead, and how long an idle lane waits, seconds.
_AHEAD, _IDLE_S = 2 * SETTLE_LIMIT, 0.5


class LaneSensors(SinkSensors, Protocol):
    """What a lane reports beside its receipts."""

    def partition_halted(self, topic: str, partition: int, reason: str) -> None: ...
    def partition_resumed(self, topic: str, partition: int, reason: str) -> None: ...
    def lane_waits(
        self, organization: str, topic: str, partition: int, oldest_ms: Callable[[], int | None] | None
    ) -> None: ...


def lane_config(config: DeliveryConfig, organization: str) -> DeliveryConfig:
    """Return the configuration of a lane, from the default organisation's: another consumer group."""
    return replace(config, organization=organization, group=f"{config.group}-{organization}")


class OrganizationLane:
    """Reads one partition and posts the events of one organisation, until it is cancelled.

    Args:
        config: see `lane_config`.

    Fields:
        in_place: set when the group's offset of this partition is durable: the lane misses no event that comes later.
    """

    def __init__(
        self,
        tp: TopicPartition,
        config: DeliveryConfig,
        delivery: EventDelivery,
        orgs: CompactedTable[OrgRecord],
        sensors: LaneSensors,
        traces: DeliveryTraces | None = None,
    ) -> None:
        self.in_place = asyncio.Event()
        self.work = DeliveryWork(tp, config, delivery, orgs, sensors, traces)
        self._tp = tp
        self._config = config
        self._sensors = sensors
        self._fetched: deque[ReceivedEvent] = deque()
        self._oldest_ms: int | None = None
        self._halted = ""
        self._arrived = asyncio.Event()
        self._given_back = 0
        self._at_end = False
        self._own_at = self._stood_at = -1
        self.work.look_behind_received(self._following)

    async def run(self) -> None:
        """Post events until cancelled. Connection errors, a topic that lost events, and a `CancelledError` that a library lets out, of the
        reader too, open the lane again.

        Raises:
            ProducerFenced: another process owns the partition.
            Any other error is a bug.
        """
        place = {"organization": self._config.organization, "topic": self._tp.topic, "partition": self._tp.partition}
        if self._tp.topic == self._config.topics.events:  # in the retry topic events wait for their time
            self._sensors.lane_waits(*self._place(), lambda: self._oldest_ms)
        while True:
            try:
                await self._session()
            except TopicProblem as problem:
                self.in_place.set()  # a lane without an offset has none of these
                self._stood_at = self._own_at
                self._halt(problem.reason)
                log.error("organization_lane_halted", **place, reason=problem.reason, detail=problem.detail)  # noqa: TRY400  # expected: the reason is enough
                await self._config.sleep(_HALTED_S)
            except (Unavailable, KafkaError, asyncio.CancelledError) as error:
                if is_own_cancellation(error) or (isinstance(error, KafkaError | Unavailable) and not may_pass(error)):
                    raise
                log.warning("organization_lane_reopened", **place, error=type(error).__name__)
                await self._config.sleep(_AGAIN_S)

    async def close(self) -> None:
        """Release the partition. Call it when `run` has ended."""
        self._halt("")
        self._sensors.lane_waits(*self._place(), None)
        await self.work.close()

    async def _session(self) -> None:
        """Post events for a day at most, whether any come or are taken. A post under way ends first, unless Lago takes none.

        A lane's group has no members. Of such a group Kafka forgets the offset 7 days after its last commit
        (`offsets.retention.minutes`), and the lane would begin at the topic's beginning.
        """
        await self.work.close()
        self._fetched.clear()
        self._oldest_ms, self._given_back, self._at_end, self._own_at = None, 0, False, -1
        offset = await self.work.open()
        self.in_place.set()
        async with asking(self._config.kafka, self._config.group, fetch_max_wait_ms=_HELD_MS) as consumer:
            consumer.assign([self._tp])
            consumer.seek(self._tp, offset)
            reading = asyncio.ensure_future(self._read(consumer))
            clock = asyncio.get_running_loop().time
            over_s = clock() + _SESSION_S
            limit = asyncio.timeout_at(over_s + _POST_S)
            try:
                async with limit:
                    while not reading.done() and clock() < over_s:
                        await self._post()
                    if reading.done():
                        reading.result()
            except TimeoutError:
                if not limit.expired():
                    raise
            finally:
                await end({reading})

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        """Fetch ahead, so that a post that fails is seen to have others behind it."""
        while True:
            if len(self._fetched) >= _AHEAD:
                await self._config.sleep(_IDLE_S)
                continue
            fetched = await consumer.getmany(timeout_ms=_HELD_MS, max_records=SETTLE_LIMIT)
            # Before the first answer nothing is known of what lies there.
            self._at_end = not fetched and consumer.highwater(self._tp) is not None
            for records in fetched.values():
                self._fetched.extend(map(ReceivedEvent, records))
                self._arrived.set()

    async def _post(self) -> None:
        """Post what was fetched, if anything is; what is given back is posted again with what follows it."""
        if not self._fetched:
            self._oldest_ms = None
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_S):
                    await self._arrived.wait()
            if self._at_end and not self._fetched:
                self._halt("")
            return await self.work.punctuate()
        received = [self._fetched.popleft() for _ in range(min(len(self._fetched), SETTLE_LIMIT + self._given_back))]
        own = next((one.record for one in received if self.work.is_own(one)), None)
        self._oldest_ms, self._own_at = (None, -1) if own is None else (int(own.timestamp), int(own.offset))
        done_to = await self.work.process_received(received)
        left = [one for one in received if one.record.offset >= done_to]
        self._fetched.extendleft(reversed(left))
        self._given_back = len(left)
        if received[-1].record.offset >= self._stood_at:  # what it stood at may lie behind those of others
            self._halt("")
        return None

    def _following(self) -> ReceivedEvent | None:
        return next((one for one in self._fetched if self.work.is_own(one)), None)

    def _halt(self, reason: str) -> None:
        if self._halted == reason:
            return
        _, topic, partition = self._place()
        if self._halted:
            self._sensors.partition_resumed(topic, partition, self._halted)
        if reason:
            self._sensors.partition_halted(topic, partition, reason)
        self._halted = reason

    def _place(self) -> tuple[str, str, int]:
        return self._config.organization, self._tp.topic, self._tp.partition


class OrganizationLanes:
    """`streams.runtime.partition_task.PartitionProcessor` of the default organisation, with the lanes of the others.

    Args:
        lanes: of the organisations that are configured, by their names.
        known: names of the organisations that have an org, kept up to date; read when `own` is open.
        standing: a lane that posts nothing, for an organisation that is not configured.
    """

    def __init__(
        self,
        own: DeliveryWork,
        lanes: Mapping[str, OrganizationLane],
        known: Collection[str],
        standing: Callable[[str], OrganizationLane],
    ) -> None:
        self._own = own
        self._lanes = dict(lanes)
        self._known = known
        self._standing = standing
        self._tasks: dict[str, asyncio.Task[None]] = {}
        own.before_passing(self._before_passing)

    async def open(self) -> int:
        """See `DeliveryWork.open`; the lanes open by themselves."""
        following = await self._own.open()
        for name in set(self._known) - self._lanes.keys():
            self._lanes[name] = self._standing(name)
        self._tasks = {name: asyncio.ensure_future(lane.run()) for name, lane in self._lanes.items()}
        return following

    async def process(self, records: Sequence[ConsumerRecord]) -> int:
        """See `DeliveryWork.process`. Raises: also what ended a lane."""
        return await self._unless_a_lane_ends(self._own.process(records))

    async def punctuate(self) -> None:
        """See `DeliveryWork.punctuate`. Raises: also what ended a lane."""
        await self._unless_a_lane_ends(self._own.punctuate())

    def look_behind(self, following: Callable[[], ConsumerRecord | None]) -> None:
        """See `streams.runtime.partition_task.LooksBehind`."""
        self._own.look_behind(following)

    async def close(self) -> None:
        """Stop the lanes, then the default organisation's work."""
        tasks, self._tasks = self._tasks, {}
        await end(tasks.values())
        await asyncio.gather(self._own.close(), *(self._lanes[name].close() for name in tasks))

    def in_transaction(self) -> bool:
        """Return whether closing has to wait for a transaction."""
        return self._own.in_transaction() or any(lane.work.in_transaction() for lane in self._lanes.values())

    async def _before_passing(self, organization: str) -> None:
        """Wait until the organisation's consumer has committed its start offset.

        Without it, no consumer would read an event that the default organisation's work has passed over.
        """
        lane = self._lanes.get(organization)
        if lane is None:
            lane = self._lanes[organization] = self._standing(organization)
        if lane.in_place.is_set():
            return
        task = self._tasks.get(organization)
        if task is None:
            task = self._tasks[organization] = asyncio.ensure_future(lane.run())
        placed = asyncio.ensure_future(lane.in_place.wait())
        try:
            await asyncio.wait({placed, task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            placed.cancel()
        if task.done():
            task.result()

    async def _unless_a_lane_ends(self, work: Awaitable[T]) -> T:
        """Return the result of `work`, unless a lane ends meanwhile: a partition must not be half served."""
        own = asyncio.ensure_future(work)
        try:
            await asyncio.wait({own, *self._tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
            for task in self._tasks.values():
                if task.done():
                    task.result()
            return await own
        finally:
            if not own.done():
                own.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await own
