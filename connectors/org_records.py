"""The orgs' records: read from this process's view, changed one after the other whatever process asks.

A change is a compare-and-set (docs/adr/0012): all processes write `billing.orgs` under one transactional id. Whoever
starts it fences the others, reads what they wrote, and goes on writing until it is fenced itself; a change that finds
itself fenced is made again on what is there now.
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced

from schemas.customers import OrgRecord
from schemas.errors import Unavailable
from streams.followers import Follower
from streams.reading import reading
from streams.transactions import TransactionalWriter, Write

#: The topic has one partition (schemas/topics.py).
_PARTITION = 0
#: A change takes so long at most, once it is its turn.
_LIMIT_S = 10.0
#: The second attempt is made at once: mostly the other process is done. Before each further one a wait is drawn
#: between nothing and this, doubled each time up to the second.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 1.0
#: At the topic's end there are often only a transaction's marks, which end no wait for records.
_TAIL: dict[str, Any] = {"isolation_level": "read_committed", "auto_offset_reset": "earliest", "fetch_max_wait_ms": 10}
_POLL_MS = 10

_encode = msgspec.json.Encoder().encode
copy = msgspec.structs.replace

Make = Callable[[OrgRecord], OrgRecord]


class OrgRecords:
    """The only way to write `billing.orgs`.

    Args:
        orgs: the view; followed by whoever made it.
        kafka: connection options for aiokafka.
        now_us: microseconds since 1970 UTC.
        draw: a number in `[0, 1)`.
    """

    def __init__(
        self,
        orgs: Follower[OrgRecord],
        kafka: Mapping[str, Any],
        topic: str,
        *,
        now_us: Callable[[], int],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._orgs = orgs
        self._kafka = kafka
        self._tp = TopicPartition(topic, _PARTITION)
        self._now_us = now_us
        self._draw = draw
        self._lock = asyncio.Lock()
        self._writer: TransactionalWriter | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def get(self, org_id: str) -> OrgRecord | None:
        """The org's record as this process sees it: with all changes made here, others' within a second.

        Raises:
            Unavailable: `view_incomplete`: the topic has not been read yet.
        """
        try:
            async with asyncio.timeout(_LIMIT_S):
                await self._orgs.wait_fresh(float("inf"))
        except TimeoutError:
            raise Unavailable("view_incomplete", "the orgs' records have not been read yet") from None
        return self._orgs.table.get(org_id)

    async def change(self, org_id: str, make: Callable[[OrgRecord], OrgRecord]) -> OrgRecord:
        """Make the org's record what `make` says of it; durable, and shown by `get`, on return.

        Args:
            make: from the record as it is, a new one with the id alone where there is none. The same record again
                writes nothing. It may be called several times, once more also after it was written and that was not
                learnt; so it says what shall be, not how much more. `updated_at` is set by whoever writes.

        Raises:
            Unavailable: `org_contended`, `kafka_unavailable`; it may have been written, repeating is safe.
            Whatever `make` raises: nothing is written.
        """
        async with self._lock:
            failures: list[KafkaError] = []
            try:
                async with asyncio.timeout(_LIMIT_S):
                    return await self._until_done(org_id, make, failures)
            except TimeoutError:
                if failures and isinstance(failures[-1], ProducerFenced):
                    raise Unavailable("org_contended", "other processes change orgs all the time") from failures[-1]
                raise Unavailable("kafka_unavailable", "the org's record was not stored in time") from None

    async def close(self) -> None:
        """Let go of the connections; nothing of this process is written any more."""
        self._abandon()
        await asyncio.gather(*self._ending)

    async def _until_done(self, org_id: str, make: Make, failures: list[KafkaError]) -> OrgRecord:
        for attempt in count():
            try:
                return await self._attempt(org_id, make)
            except KafkaError as error:
                failures.append(error)
            await asyncio.sleep(self._draw() * min(_LONGEST_WAIT_S, _FIRST_WAIT_S * (2**attempt - 1)))
        raise AssertionError

    async def _attempt(self, org_id: str, make: Make) -> OrgRecord:
        """Raises: KafkaError: fenced, or Kafka is not there; a new attempt begins with fencing."""
        whole = self._writer is None
        if whole:
            await self._fence()
        while True:
            known = self._orgs.table.get(org_id) or OrgRecord(org_id)
            try:
                wanted = copy(make(known), org_id=org_id, updated_at=known.updated_at)
            except Exception:
                if whole:
                    raise
                wanted = known
            if wanted != known:
                return await self._write(copy(wanted, updated_at=self._now_us()))
            if whole:
                return known
            # What is to stay, or was refused, must not be what somebody else has changed since.
            await self._see_all()
            whole = True

    async def _fence(self) -> None:
        """Become the only writer, and see all that the others have written."""
        with self._or_abandoned():
            async with reading(**self._kafka, **_TAIL) as consumer:
                self._writer = TransactionalWriter(self._kafka, f"{self._tp.topic}-{_PARTITION}")
                await self._writer.start()
                await self._see_tail(consumer)

    async def _see_all(self) -> None:
        async with reading(**self._kafka, **_TAIL) as consumer:
            await self._see_tail(consumer)

    async def _see_tail(self, consumer: AIOKafkaConsumer) -> None:
        """Return once the view holds every record that is committed now."""
        end = (await consumer.end_offsets([self._tp]))[self._tp]
        at = self._orgs.next_offset(_PARTITION)
        last = at - 1
        if at < end:
            consumer.assign([self._tp])
            consumer.seek(self._tp, at)
        while at < end:
            for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                last = records[-1].offset
            at = await consumer.position(self._tp)
        await self._orgs.wait_offset(_PARTITION, last)

    async def _write(self, record: OrgRecord) -> OrgRecord:
        """Raises: KafkaError: it is not known whether it is written."""
        with self._or_abandoned():
            write = Write(self._tp.topic, _PARTITION, record.org_id.encode(), _encode(record))
            assert self._writer is not None  # noqa: S101  # `_attempt` has fenced
            ends = await self._writer.commit([write], self._tp, None, "")
            await self._orgs.wait_offset(_PARTITION, ends[self._tp.topic, _PARTITION] - 1)
        return record

    @contextmanager
    def _or_abandoned(self) -> Iterator[None]:
        """The writer is kept only while the view is known to hold all that it and those before it wrote."""
        try:
            yield
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            ending = asyncio.ensure_future(writer.stop())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)


class StoredIds:
    """`connectors.lago.subscription_ids.SubscriptionIds` in the orgs' records."""

    def __init__(self, records: OrgRecords) -> None:
        self._records = records

    async def recall(self, org_id: str) -> str | None:
        """See `SubscriptionIds`."""
        record = await self._records.get(org_id)
        return record.subscription_id or None if record is not None else None

    async def remember(self, org_id: str, proposed: str) -> str:
        """See `SubscriptionIds`."""
        record = await self._records.change(
            org_id, lambda org: org if org.subscription_id else copy(org, subscription_id=proposed)
        )
        return record.subscription_id
