"""A transactional producer for one input partition: it writes all records and the input's offset, or nothing.

The transactional id names the role and the partition. So the start of the producer fences the partition's previous
owner and ends its open transaction (Kafka KIP-98). An abandoned transaction needs no abort, because the start of the
next owner aborts it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidProducerIdMapping, KafkaConnectionError, KafkaError
from aiokafka.partitioner import murmur2

from streams.core.delivery.dead_letter_headers import Headers
from streams.runtime.aiokafka_repairs import repair_aiokafka

#: The transaction timeout: longer than any commit, and short enough that a dead owner does not block readers for long.
TRANSACTION_TIMEOUT_MS = 12_000
_BATCH_BYTES = 512 << 10
_REQUEST_BYTES = 8 << 20
#: The broker refuses a transaction while it writes the markers of the last one. The client repeats the request after
#: this time.
_BACKOFF_MS = 20
_STOP_S = 1.0
#: The longest start or commit, seconds. It is longer than the transaction timeout, so the client gets the error of
#: every fence first. aiokafka (0.14.0) itself waits without a limit and without a log line: for its own tasks, and
#: while the broker answers that an earlier transaction of this id is not complete.
STALLED_S = 45.0

_NO_HEADERS: Headers = []  # aiokafka's compiled code accepts only a list


class Write(NamedTuple):
    """One record to write; `partition` -1 = the partition of `key`."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = _NO_HEADERS


class Run(NamedTuple):
    """Records for one partition, in order and without headers. They need a third of the time of the same number of
    `Write`s.
    """

    topic: str
    partition: int
    records: Iterable[tuple[bytes | None, bytes | None]]


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key by Kafka's default partitioner (murmur2), which all our clients use."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


class ProducerExpired(KafkaError):  # type: ignore[misc]  # aiokafka's has no types
    """The broker has forgotten the producer: nothing was written for `transactional.id.expiration.ms` (7 days).

    No other owner fenced it, and nothing of this transaction was written, so a new writer can continue.
    """

    retriable = True


class KafkaStalled(KafkaConnectionError):  # type: ignore[misc]  # aiokafka's has no types
    """Kafka neither accepted nor refused the request within `STALLED_S`. It is unknown whether a transaction was
    committed.
    """


class TransactionalWriter:
    """The writer for one input partition. Start it once; do not use it after an error."""

    def __init__(self, kafka: Mapping[str, Any], transactional_id: str) -> None:
        repair_aiokafka()
        self._producer = AIOKafkaProducer(
            **kafka,
            transactional_id=transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            acks="all",
            compression_type=None,
            max_batch_size=_BATCH_BYTES,
            max_request_size=_REQUEST_BYTES,
            retry_backoff_ms=_BACKOFF_MS,
        )
        self._counts: dict[str, int] = {}
        self.busy = False

    async def start(self) -> None:
        """Fence the previous owner.

        Raises:
            KafkaStalled: see there. Otherwise aiokafka's errors.
        """
        async with _at_most(STALLED_S):
            await self._producer.start()

    async def commit(
        self,
        writes: Iterable[Write],
        source: TopicPartition,
        offset: int | None,
        group: str,
        runs: Iterable[Run] = (),
    ) -> dict[tuple[str, int], int]:
        """Write all records, the runs first, and move the group's offset of `source` to `offset`, in one transaction.

        Returns the offset after the last record, for each topic partition written to. After an error the outcome is
        unknown: abandon this writer, start another and read back.

        Args:
            offset: None = do not change the group's offset.

        Raises:
            ProducerExpired, KafkaStalled: see there. Otherwise aiokafka's errors.
        """
        self.busy = True
        try:
            async with _at_most(STALLED_S):
                batches = await self._batches(writes, runs)
                await self._producer.begin_transaction()
                # All first batches are queued before the producer's task runs, so that it adds all partitions to the
                # transaction in one request. If a partition is added later, the broker refuses records of the
                # transaction for a while. The offset is sent after them for the same reason.
                ends = dict(await asyncio.gather(*(self._deliver(place, own) for place, own in batches.items())))
                if offset is not None:
                    await self._producer.send_offsets_to_transaction({source: offset}, group)
                await self._producer.commit_transaction()
            return ends
        except KafkaError as error:
            if _expired(error):
                raise ProducerExpired("Kafka has forgotten a producer that was idle") from error
            raise
        finally:
            self.busy = False

    async def _batches(self, writes: Iterable[Write], runs: Iterable[Run]) -> dict[tuple[str, int], list[Any]]:
        """Return the records as batches by topic partition. This takes 1 us per record, and less than half in a run;
        `send` takes 20 us.
        """
        batches: dict[tuple[str, int], list[Any]] = {}
        for topic, partition, records in runs:
            if filled := self._filled(records):
                batches[topic, partition] = filled
        for topic, partition, key, value, headers in writes:
            count = self._counts.get(topic) or await self._partitions(topic)
            place = (topic, partition if partition >= 0 else partition_of(key or b"", count))
            own = batches.get(place)
            if own is None:
                own = batches[place] = [self._producer.create_batch()]
            if own[-1].append(timestamp=None, key=key, value=value, headers=headers) is None:
                own.append(self._producer.create_batch())
                own[-1].append(timestamp=None, key=key, value=value, headers=headers)
        for own in batches.values():
            own[-1].close()
        return batches

    def _filled(self, records: Iterable[tuple[bytes | None, bytes | None]]) -> list[Any]:
        full: list[Any] = []
        batch = None
        for key, value in records:
            if batch is None or batch.append(timestamp=None, key=key, value=value, headers=_NO_HEADERS) is None:
                batch = self._producer.create_batch()
                batch.append(timestamp=None, key=key, value=value, headers=_NO_HEADERS)
                full.append(batch)
        return full

    async def _deliver(self, place: tuple[str, int], batches: list[Any]) -> tuple[tuple[str, int], int]:
        """Send batches of one partition and await them; return the offset after the last record."""
        futures = []
        for batch in batches:
            futures.append(await self._producer.send_batch(batch, place[0], partition=place[1]))
            futures[-1].add_done_callback(_heard)
        sent = [await future for future in futures]
        return place, sent[-1].offset + batches[-1].record_count()

    async def _partitions(self, topic: str) -> int:
        count = self._counts.get(topic)
        if count is None:
            count = self._counts[topic] = len(await self._producer.partitions_for(topic))
        return count

    async def stop(self) -> None:
        """Close the connections. The next owner aborts an uncommitted transaction."""
        await stop_producer(self._producer)


@contextlib.asynccontextmanager
async def transactional_writer(kafka: Mapping[str, Any], transactional_id: str) -> AsyncIterator[TransactionalWriter]:
    """Start a writer, and stop it at the end of the block. Raises: see `TransactionalWriter.start`."""
    writer = TransactionalWriter(kafka, transactional_id)
    try:
        await writer.start()
        yield writer
    finally:
        await writer.stop()


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Close a producer's connections within about `_STOP_S`. aiokafka (0.14.0) itself waits until its remaining records
    are sent or expired, 40 s while Kafka does not answer.
    """
    stopping = asyncio.ensure_future(producer.stop())
    done, _ = await asyncio.wait({stopping}, timeout=_STOP_S)
    if not done:
        stopping.cancel()
    with contextlib.suppress(asyncio.CancelledError, KafkaError):
        await stopping
    if not done:
        await producer.client.close()  # so that no waiting record is sent later
    for future in _unheard(producer):
        if future.done():
            _heard(future)


@contextlib.asynccontextmanager
async def _at_most(limit_s: float) -> AsyncIterator[None]:
    """Limit the duration of a block. Raises: KafkaStalled: the block lasted longer. Errors of the block itself are not
    changed, not even a `TimeoutError`.
    """
    limit = asyncio.timeout(limit_s)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise KafkaStalled(f"no answer within {limit_s:.0f} s") from error


def _expired(error: BaseException | None) -> bool:
    """Return whether the error, or a cause of it, is an expired producer. aiokafka (0.14.0) hides its sender's error as
    the cause of a general one.
    """
    while error is not None:
        if isinstance(error, InvalidProducerIdMapping):
            return True
        error = error.__cause__
    return False


def _heard(future: asyncio.Future[Any]) -> None:
    """Retrieve the future's exception: `_deliver` awaits only the first failure, and asyncio would log the others."""
    if not future.cancelled():
        future.exception()


def _unheard(producer: AIOKafkaProducer) -> Iterator[asyncio.Future[None]]:
    """Return the futures that aiokafka (0.14.0) does not await when a transaction fails. asyncio would log a traceback
    for each.
    """
    ended = producer._txn_manager.wait_for_transaction_end()  # noqa: SLF001
    if ended is not None:
        yield ended
    waiting = producer._message_accumulator  # noqa: SLF001
    for batch in [*waiting._pending_batches, *chain.from_iterable(waiting._batches.values())]:  # noqa: SLF001
        yield batch._drain_waiter  # noqa: SLF001
