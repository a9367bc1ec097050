"""Sends records to Kafka; a call returns when all its records are durable.

One thread polls librdkafka's producer, and passes all acknowledgements of a poll to the event loop in one
`call_soon_threadsafe`. A future per message costs three times as much; confluent's AIOProducer has thirty times the
latency.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Thread
from typing import Any, Protocol

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from connectors.kafka.record_timestamps import RecordTimes
from schemas.errors import Rejected, Unavailable
from streams.core.delivery.dead_letter_headers import Headers

#: (topic, key, value, record time in milliseconds since 1970 UTC)
Record = tuple[str, str | None, bytes, int]


class RecordWriter(Protocol):
    """Stores one record at a time."""

    async def send_one(self, record: Record) -> tuple[int, int]:
        """Store a record; return the (partition, offset) at which it is durable. Raises: Rejected, Unavailable."""


_POLL_S = 0.1
#: How often the producer tests again whether Kafka accepts the time of this machine, seconds.
_TIMES_KNOWN_S = 60.0
#: If the wall clock moved by more than this against the monotonic clock, it was set.
_SET_MS = 60_000
#: A batch of one record with a refused time gets the first error. In a larger batch, wrong records get the second error, and
#: correct ones the third (KIP-467).
_UNTIMELY = frozenset(
    {KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD, KafkaError._INVALID_DIFFERENT_RECORD}  # noqa: SLF001
)
_log = logging.getLogger(__name__)
_structured = structlog.get_logger(__name__)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class KafkaProducer:
    """One idempotent producer for one event loop. Create and `close()` it inside that loop."""

    def __init__(
        self,
        config: Mapping[str, Any],
        now_ms: Callable[[], int] = _wall_ms,
        on_restamped: Callable[[int], None] = lambda _count: None,
        headers: Callable[[], Headers | None] | None = None,
    ) -> None:
        """Create the producer.

        Args:
            now_ms: the wall clock, milliseconds since 1970 UTC.
            on_restamped: called with the number of records that were stored with a changed time.
            headers: returns the headers for the records of one call; None = records have no headers.
        """
        self._headers = headers
        self._now_ms = now_ms
        self._on_restamped = on_restamped
        self._times = RecordTimes()
        self._times_at = self._clock_from_ms = 0.0
        self._ahead_ms = 0
        self._timing = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._fatal: str | None = None
        self._acks: list[tuple[_Delivery, KafkaError | None]] = []
        self._config = config
        self._one_by_one: KafkaProducer | None = None
        self._producer = Producer({**config, "error_cb": self._on_error}, logger=_log)
        self._open = True
        self._thread = Thread(target=self._poll, name="kafka-acks", daemon=True)
        self._thread.start()

    def healthy(self) -> bool:
        """Return whether records can be sent. After False it never becomes True again, so the process must be
        restarted.
        """
        return self._open and self._fatal is None and self._thread.is_alive()

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        """Send `records`, and wait until all in-sync replicas have acknowledged all of them.

        Returns:
            The records, by index, that Kafka refuses permanently; they are not stored.

        Raises:
            Unavailable: at least one record is not known to be durable, and others may be. Sending all of them again is safe if
                readers deduplicate.
        """
        timed = self._timed(records)
        delivery = _Delivery(self._loop.create_future(), self._acks_append)
        refused = await self._send(timed, delivery)
        if delivery.too_large:
            for index, record in enumerate(timed):
                if record[2] in delivery.too_large and (why := await self._alone.send_all([record])):
                    refused[index] = why[0]
        if not delivery.untimely:
            if self._ahead_ms and not self._times.back_ms:
                self._tell_times(0)
        else:
            untimely = set(delivery.untimely)
            places = [index for index, record in enumerate(timed) if record[2] in untimely]
            for index, why_not in (await self._send_in_time([timed[place] for place in places])).items():
                refused[places[index]] = why_not
        return refused

    def clock_ahead_s(self) -> float:
        """Return by how many seconds this machine's clock is ahead of Kafka's, with the precision of an hour; 0 while
        Kafka accepts its time.
        """
        return self._ahead_ms / 1000

    def _timed(self, records: Sequence[Record]) -> Sequence[Record]:
        """Return `records` without times in the future, which Kafka would refuse."""
        if self._times.back_ms:
            self._forget_in_time()
        now_ms = self._now_ms()
        latest_ms = self._times.plausible_ms(now_ms, now_ms)
        for record in records:
            if record[3] > latest_ms:
                break
        else:
            return records
        self._on_restamped(sum(record[3] > latest_ms for record in records))
        return [record if record[3] <= latest_ms else (*record[:3], latest_ms) for record in records]

    async def _send_in_time(
        self, records: Sequence[Record], delivery_of: "Callable[[], _Delivery] | None" = None
    ) -> dict[int, Rejected]:
        """Send `records` again with a time that Kafka accepts, after it refused their times. Later records do not wait.

        Raises:
            Unavailable: `kafka_refuses_time`: Kafka accepts no time; also see `send_all`.
        """
        async with self._timing:
            refused: dict[int, Rejected] = {}
            left = list(range(len(records)))
            back_ms: int | None = self._times.back_ms
            while back_ms is not None:
                at_ms = self._now_ms() - back_ms
                delivery = delivery_of() if delivery_of else _Delivery(self._loop.create_future(), self._acks_append)
                unacknowledged = await self._send([(*records[place][:3], at_ms) for place in left], delivery)
                refused.update({left[index]: why for index, why in unacknowledged.items()})
                if delivery.too_large:
                    raise Unavailable("kafka_unavailable", "refused for its time and its size")
                if not delivery.untimely:
                    self._tell_times(back_ms)
                    self._on_restamped(len(records))
                    return refused
                untimely = set(delivery.untimely)
                left = [place for place in left if records[place][2] in untimely]
                back_ms = self._times.refused(back_ms)
        raise Unavailable("kafka_refuses_time", "Kafka accepts no time that we tried")

    def _tell_times(self, back_ms: int) -> None:
        """Store that Kafka accepts a record with a time this far in the past, and log it if it is new."""
        before, self._ahead_ms = self._ahead_ms, back_ms
        self._times.taken(back_ms)
        self._times_at, self._clock_from_ms = time.monotonic(), self._now_ms() - time.monotonic() * 1000
        if back_ms and not before:
            _structured.error("clock_ahead_of_kafka", hours=back_ms // 3_600_000)
        elif before and not back_ms:
            _structured.info("clock_right_again")

    def _forget_in_time(self) -> None:
        """Forget the result if the clock was set, or after a minute, because the clock may be correct again."""
        passed_s = time.monotonic() - self._times_at
        set_by_ms = abs(self._now_ms() - time.monotonic() * 1000 - self._clock_from_ms)
        if passed_s > _TIMES_KNOWN_S or set_by_ms > _SET_MS:
            self._times.forget()

    async def send_one(self, record: Record) -> tuple[int, int]:
        """Send one record; return (partition, offset).

        Raises:
            Rejected, Unavailable: see `send_all`.
        """
        delivery = _Placed(self._loop.create_future(), self._acks_append)
        [timed] = self._timed([record])
        for refused in (await self._send([timed], delivery)).values():
            raise refused
        if delivery.untimely:
            placed = _Placed(self._loop.create_future(), self._acks_append)
            for refused in (await self._send_in_time([timed], placed.again)).values():
                raise refused
            return placed.place
        return await self._alone.send_one(timed) if delivery.too_large else delivery.place

    async def _send(self, records: Sequence[Record], delivery: "_Delivery") -> dict[int, Rejected]:
        if not self.healthy():
            raise Unavailable("kafka_fatal" if self._fatal else "kafka_closed", self._fatal or "")
        refused: dict[int, Rejected] = {}
        produce, headers = self._producer.produce, None if self._headers is None else self._headers()
        try:
            for index, (topic, key, value, timestamp) in enumerate(records):
                try:
                    produce(topic, value, key, on_delivery=delivery, timestamp=timestamp, headers=headers)
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                        raise
                    refused[index] = Rejected("too_large", "above the producer's message.max.bytes")
        except BufferError as error:
            delivery.future.cancel()  # nobody waits for the records before this one
            raise Unavailable("kafka_queue_full") from error
        except KafkaException as error:
            delivery.future.cancel()
            raise _unavailable(error.args[0]) from error
        delivery.left = len(records) - len(refused)
        if delivery.left:
            await delivery.future
        if delivery.too_large and self._config.get("batch.num.messages") == 1:
            refused[0], delivery.too_large = Rejected("too_large", "above the topic's max.message.bytes"), []
        return refused

    @property
    def _alone(self) -> "KafkaProducer":
        """Return a producer for batches of one record.

        A broker refuses a batch as a whole, so only a batch of one record shows which record is too large.
        """
        if self._one_by_one is None:
            self._one_by_one = KafkaProducer(
                {**self._config, "batch.num.messages": 1}, self._now_ms, headers=self._headers
            )
        return self._one_by_one

    async def close(self, timeout_s: float = 10.0) -> int:
        """Wait for records in flight; return how many are not acknowledged after `timeout_s` seconds."""
        if not self._open:
            return 0
        self._open = False
        if self._one_by_one is not None:
            await self._one_by_one.close(min(timeout_s, 0.5))
        await asyncio.to_thread(self._thread.join)
        left: int = await asyncio.to_thread(self._producer.flush, timeout_s)
        self._settle(self._acks)
        return left

    def _acks_append(self, ack: "tuple[_Delivery, KafkaError | None]") -> None:
        self._acks.append(ack)

    def _poll(self) -> None:
        while self._open:
            self._producer.poll(_POLL_S)
            if self._acks:
                acks, self._acks = self._acks, []
                self._loop.call_soon_threadsafe(self._settle, acks)

    def _settle(self, acks: "list[tuple[_Delivery, KafkaError | None]]") -> None:
        for delivery, error in acks:
            delivery.left -= 1
            if delivery.future.done():
                continue
            if error is not None:
                delivery.future.set_exception(_unavailable(error))
            elif delivery.left == 0:
                delivery.future.set_result(None)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = str(error.name())
            _structured.error("kafka_producer_failed_for_good", error=self._fatal)


class _Delivery:
    """The acknowledgements of one `send_all`. librdkafka calls this object in the polling thread."""

    __slots__ = ("_append", "future", "left", "too_large", "untimely")

    def __init__(self, future: asyncio.Future[None], append: Any) -> None:
        self.future = future
        self.left = 0
        self.too_large: list[bytes | None] = []
        self.untimely: list[bytes | None] = []
        self._append = append

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            self.too_large.append(message.value())
            error = None
        elif error is not None and error.code() in _UNTIMELY:
            self.untimely.append(message.value())
            error = None
        self._append((self, error))


class _Placed(_Delivery):
    """The acknowledgement of one record with its partition and offset."""

    __slots__ = ("place",)

    def again(self) -> "_Placed":
        """Reset the result before the refused record is sent again."""
        self.future = self.future.get_loop().create_future()
        self.untimely = []
        return self

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self.place: tuple[int, int] = (message.partition() or 0, message.offset() or 0)
        super().__call__(error, message)


def _unavailable(error: KafkaError) -> Unavailable:
    if error.code() == KafkaError._MSG_TIMED_OUT:  # noqa: SLF001  # librdkafka's own errors are spelt so
        return Unavailable("kafka_timeout", "no acknowledgement in time")
    return Unavailable("kafka_fatal" if error.fatal() else "kafka_unavailable", str(error.name()))
