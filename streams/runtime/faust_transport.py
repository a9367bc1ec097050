"""Makes Faust as fast as aiokafka: an agent gets one message per fetch batch of a partition.

Faust spends about 60 us of asyncio machinery on a message; here one message carries up to `broker_max_poll_records`
records. Three more rules make it fit for money (docs/adr/0001):

- Each fetch batch is stamped `[from_offset, next_offset)`. `from_offset` is the end of the batch before it, or the
  offset that the partition task sought. Faust drops fetch batches around a rebalance; the stamps show the gap, and the
  partition task fetches again. A partition without a seek yields nothing.
- Faust never commits an offset and never seeks: the partition tasks do both.
- Reads are `read_committed`, and a lost offset is an error, not a silent jump to another.

The code relies on internals of faust-streaming 0.15.3. If an upgrade changes one, `tests/integration/test_transport.py`
fails.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import faust
from aiokafka import ConsumerRecord
from aiokafka.errors import IllegalStateError, NoOffsetForPartitionError
from faust.serializers import codecs
from faust.transport.consumer import Consumer as BaseConsumer
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import TP, ConsumerMessage

from streams.runtime.aiokafka_repairs import repair_aiokafka
from streams.runtime.fetch_pace import BUSY, FetchPace
from streams.runtime.plain_consumer import stop

#: The time between two ticks of an app, seconds.
TICK_S = 0.5
#: How long a consumer with nothing to fetch waits, seconds.
_IDLE_S = 0.02


@dataclass(frozen=True, slots=True)
class FetchBatch:
    """All records of one partition in `[from_offset, next_offset)`."""

    records: Sequence[ConsumerRecord]
    from_offset: int
    next_offset: int


class _AsIs(codecs.Codec):
    """Passes the fetch batch through Faust's codecs unchanged."""

    def _loads(self, s: Any) -> Any:
        return s

    def _dumps(self, s: Any) -> Any:
        return s


codecs.register("fetch_batch", _AsIs())


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """The fetching thread. Only this thread changes `stamps`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stamps: dict[TP, int] = {}
        self.pace = FetchPace()

    def _create_worker_consumer(self, transport: Any) -> Any:
        # `in_transaction` makes Faust read committed records; it has no other use here.
        self.consumer.in_transaction = True
        try:
            consumer = super()._create_worker_consumer(transport)
        finally:
            self.consumer.in_transaction = False
        consumer._fetch_max_wait_ms = BUSY.held_ms  # noqa: SLF001  # read when it is started
        return consumer

    async def on_thread_stop(self) -> None:
        # As in Faust, but with the guarded stop. An error in an unguarded stop ends the thread, and the app waits for
        # it forever.
        await super(driver.AIOKafkaConsumerThread, self).on_thread_stop()
        if self._consumer is not None:
            await stop(self._consumer)

    async def on_partitions_revoked(self, revoked: Any) -> None:
        self.stamps.clear()
        await super().on_partitions_revoked(revoked)

    async def _fetch_records(self, consumer: Any, active_partitions: Any, **kwargs: Any) -> dict[TP, FetchBatch]:
        fetchable = {tp for tp in active_partitions if tp in self.stamps}
        if len(fetchable) < len(consumer.assignment()):
            self.pace.busy()
        self.pace.apply(consumer)
        if not fetchable:
            return {}
        try:
            records = await super()._fetch_records(consumer, fetchable, **kwargs)
        except NoOffsetForPartitionError:
            # A new partition has no committed offset: its task seeks before the first fetch.
            return {}
        # There is no `await` between aiokafka's change of the position and this line, so the stamps are exact.
        if records:
            self.pace.busy()
            self.pace.apply(consumer)
        fetch_batches = {}
        for tp, fetched in records.items():
            start = self.stamps.get(tp)
            if start is not None and fetched:
                self.stamps[tp] = fetched[-1].offset + 1
                fetch_batches[tp] = FetchBatch(fetched, start, fetched[-1].offset + 1)
        return fetch_batches

    async def seek_partition(self, tp: TP, offset: int) -> bool:
        """Fetch `tp` from `offset` on; False = it is no longer assigned."""
        done: bool = await self.call_thread(self._seek_partition, tp, offset)
        return done

    async def _seek_partition(self, tp: TP, offset: int) -> bool:
        try:
            self._ensure_consumer().seek(driver.ensure_aiokafka_TP(tp), offset)
        except IllegalStateError:
            return False
        self.stamps[tp] = offset
        self.pace.busy()
        return True

    async def seek_to_committed(self) -> dict[TP, int]:
        return {}

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: this is Faust's commit watchdog, and Faust commits nothing here."""


class _Consumer(driver.Consumer):
    """Yields one message per fetch batch."""

    _thread: _ConsumerThread

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def fetched_to(self, tp: TP) -> int | None:
        """Return the end of the last yielded fetch batch, or the last seek; None before the first."""
        return self._thread.stamps.get(tp)

    async def seek_partition(self, tp: TP, offset: int) -> bool:
        """Fetch `tp` from `offset` on; False = it is no longer assigned."""
        done: bool = await self._thread.seek_partition(tp, offset)
        self._read_offset[tp] = None
        return done

    async def _wait_next_records(self, timeout: float) -> Any:
        # Faust sleeps a whole second if every partition is paused, but partition tasks resume sooner.
        if self.flow_active and not self._get_active_partitions():
            await self.sleep(_IDLE_S)
            return {}, set()
        # The wait is short unless the consumer is quiet, because records of a partition that is resumed meanwhile may
        # be here already.
        wait_s = min(timeout, self._thread.pace.waits().records_s)
        fetch_batches, active = await super()._wait_next_records(wait_s)
        if not fetch_batches:
            await self.sleep(_IDLE_S / 10)
        return fetch_batches, active

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        # Faust would hand its own set to the fetching thread, and pauses and resumes change the set meanwhile.
        return await super()._getmany(None if active_partitions is None else set(active_partitions), timeout)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        fetch_batches, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if not fetch_batches or self.should_stop or not self.flow_active:
            return
        for tp, fetch_batch in fetch_batches.items():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if tp not in active and tp not in self._buffered_partitions:
                continue
            last = fetch_batch.records[-1]
            # Faust searches for gaps between offsets; the partition task does that better.
            self._read_offset[tp] = last.offset - 1
            yield (
                tp,
                ConsumerMessage(
                    tp.topic,
                    tp.partition,
                    last.offset,
                    last.timestamp / 1000,
                    last.timestamp_type,
                    [],
                    None,
                    fetch_batch,
                    None,
                    0,
                    0,
                    tp,
                    generation_id=generation,
                ),
            )

    def _new_offset(self, tp: TP) -> int | None:
        """Return None, because offsets are committed only in the partition tasks' transactions."""
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return None


class RecordBatchTransport(driver.Transport):
    """The aiokafka transport with a consumer that yields fetch batches."""

    Consumer: type[BaseConsumer] = _Consumer


class App(faust.App):
    """A Faust app on the record-batch transport."""

    def __init__(self, *args: Any, **options: Any) -> None:
        repair_aiokafka()
        super().__init__(*args, **options)
        self._ticked: dict[Callable[[], Coroutine[Any, Any, None]], asyncio.Task[None] | None] = {}

    def every_tick(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` twice a second while the app runs. All calls share one timer, and none waits for another."""
        if not self._ticked:
            self._app_tasks.append(self._tick_always)
        self._ticked[work] = None

    async def _tick_always(self) -> None:
        async for _ in self.itertimer(TICK_S, name="tick"):
            await self._tick()

    async def _tick(self) -> None:
        for work, under_way in self._ticked.items():
            if under_way is not None:
                if not under_way.done():
                    continue
                if under_way.cancelled():  # Faust would end the timer and continue without it
                    raise RuntimeError("a tick was cancelled, and not by this app")
                under_way.result()  # an error ends the app, as an error in this method does
            self._ticked[work] = asyncio.create_task(work())

    def _new_transport(self) -> RecordBatchTransport:
        return RecordBatchTransport(self.conf.broker_consumer, self)

    def route(self, topic: str, work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        """Pass the topic's stream of `FetchBatch`s to `work`, in an agent.

        Faust's decorators `agent`, `task` and `timer` also store their place in the source, for a search for agents
        that is not used here. To find the place they read every loaded module. In a forked process this copies 10 MB of
        memory pages, and source files are read into memory.
        """
        name = f"{self.conf.id}.{topic}.route"
        agent = self.conf.Agent(
            work,
            name=name,
            app=self,
            channel=self.fetch_batches(topic),
            on_error=self._on_agent_error,
            help=work.__doc__,
        )
        self.agents[name] = agent
        self.topics.beacon.add(agent)

    def fetch_batches(self, topic: str) -> Any:
        """Return the topic as a channel of `FetchBatch`s, for an agent."""
        return self.topic(
            topic,
            value_serializer="fetch_batch",
            key_serializer="raw",
            value_type=None,
            key_type=bytes,
            allow_empty=True,
        )
