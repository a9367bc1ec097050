"""Records go to Kafka and the caller continues when every one of them is durable.

librdkafka's producer is driven by one thread that polls it; the acks of one poll reach the event
loop in a single `call_soon_threadsafe`. A future a message costs three times as much, confluent's own
AIOProducer thirty times the latency.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from threading import Thread
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas.errors import Rejected, Unavailable

#: (topic, key, value, record time in milliseconds since 1970 UTC)
Record = tuple[str, str | None, bytes, int]

_POLL_S = 0.1
_log = logging.getLogger(__name__)


def producer_config(
    bootstrap: str,
    *,
    answer_within_s: float,
    client_id: str = "meterbridge-ingress",
    security: Mapping[str, str | int | bool] | None = None,
) -> dict[str, str | int | float | bool]:
    """librdkafka's settings for records that must be durable, in order, once, and on Java's partition.

    Args:
        answer_within_s: how long the senders wait (`WEBHOOK_TIMEOUT`). A record fails after two thirds
            of it, so that a sender hears 503 while it still listens.
    """
    return {
        "bootstrap.servers": bootstrap,
        "client.id": client_id,
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        "linger.ms": 3,
        "message.timeout.ms": int(answer_within_s * 2000 / 3),
        "reconnect.backoff.max.ms": 1000,
        "queue.buffering.max.messages": 200_000,
        "queue.buffering.max.kbytes": 256 << 10,
        **(security or {}),
    }


class KafkaProducer:
    """One idempotent producer of one event loop. Make it inside the running loop; `close()` it there."""

    def __init__(self, config: Mapping[str, Any]) -> None:
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
        """Records can be sent. Once False it stays so: the process has to be started anew."""
        return self._open and self._fatal is None and self._thread.is_alive()

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        """Return when all `records` are acknowledged by all in-sync replicas.

        Returns:
            The records, by index, that Kafka refuses for good; nothing of them is stored.

        Raises:
            Unavailable: at least one record is not known to be durable; others of them may be. Sending
                all of them again is harmless where readers deduplicate.
        """
        delivery = _Delivery(self._loop.create_future(), self._acks_append)
        refused = await self._send(records, delivery)
        if delivery.too_large:
            for index, record in enumerate(records):
                if record[2] in delivery.too_large and (why := await self._alone.send_all([record])):
                    refused[index] = why[0]
        return refused

    async def send_one(self, record: Record) -> tuple[int, int]:
        """Where one record is durable: (partition, offset).

        Raises:
            Rejected, Unavailable: as `send_all`.
        """
        delivery = _Placed(self._loop.create_future(), self._acks_append)
        for refused in (await self._send([record], delivery)).values():
            raise refused
        return await self._alone.send_one(record) if delivery.too_large else delivery.place

    async def _send(self, records: Sequence[Record], delivery: "_Delivery") -> dict[int, Rejected]:
        if not self.healthy():
            raise Unavailable("kafka_fatal" if self._fatal else "kafka_closed", self._fatal or "")
        refused: dict[int, Rejected] = {}
        try:
            for index, (topic, key, value, timestamp) in enumerate(records):
                try:
                    self._producer.produce(topic, value, key, on_delivery=delivery, timestamp=timestamp)
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                        raise
                    refused[index] = Rejected("too_large", "above the producer's message.max.bytes")
        except BufferError as error:
            raise Unavailable("kafka_queue_full") from error
        except KafkaException as error:
            raise _unavailable(error.args[0]) from error
        delivery.left = len(records) - len(refused)
        if delivery.left:
            await delivery.future
        if delivery.too_large and self._config.get("batch.num.messages") == 1:
            refused[0], delivery.too_large = Rejected("too_large", "above the topic's max.message.bytes"), []
        return refused

    @property
    def _alone(self) -> "KafkaProducer":
        """Brokers measure whole batches and refuse them whole: only a batch of one tells which record it was."""
        if self._one_by_one is None:
            self._one_by_one = KafkaProducer({**self._config, "batch.num.messages": 1})
        return self._one_by_one

    async def close(self, timeout_s: float = 10.0) -> int:
        """Wait for what is on its way; returns how many records are still not acknowledged then."""
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
            _log.error("kafka_producer_failed_for_good %s", self._fatal)


class _Delivery:
    """The acks that one `send_all` waits for; called by librdkafka in the polling thread."""

    __slots__ = ("_append", "future", "left", "too_large")

    def __init__(self, future: asyncio.Future[None], append: Any) -> None:
        self.future = future
        self.left = 0
        self.too_large: list[bytes | None] = []
        self._append = append

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            self.too_large.append(message.value())
            error = None
        self._append((self, error))


class _Placed(_Delivery):
    """The ack of one record, with its place."""

    __slots__ = ("place",)

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self.place: tuple[int, int] = (message.partition() or 0, message.offset() or 0)
        super().__call__(error, message)


def _unavailable(error: KafkaError) -> Unavailable:
    if error.code() == KafkaError._MSG_TIMED_OUT:  # noqa: SLF001  # librdkafka's own errors are spelt so
        return Unavailable("kafka_timeout", "no acknowledgement in time")
    return Unavailable("kafka_fatal" if error.fatal() else "kafka_unavailable", str(error.name()))
