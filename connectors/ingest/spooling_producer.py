"""Records go to Kafka, or to the spool while Kafka is away, and from there to Kafka when it is back (ADR 0011).

While anything is in the spool, what comes goes behind it: records reach a partition in the order of their
receipt, and nobody waits for a broker that is known to be away. Under steady traffic a spool would so never be
empty: while its last batch leaves, what comes waits for that, some milliseconds, and then goes to Kafka.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import structlog

from connectors.ingest.rejection_record import InvalidElement, rejection
from connectors.ingest.shared_deadline import SharedDeadline
from connectors.ingest.spool import Spool
from connectors.ingest.store import RecordSender
from connectors.kafka.producer import Record
from schemas.errors import Rejected, Unavailable
from schemas.reasons import TOO_LARGE

#: LiteLLM's sender gives up after 5 s: Kafka's answer is awaited this long, the disk has the rest.
KAFKA_S = 3.0

_BATCH_RECORDS, _BATCH_BYTES = 1000, 1 << 20
_PROBE_EVERY_S, _SOON_S = 0.5, 0.01
#: The producer never sends again: the process has to be started anew.
_FOR_GOOD = {"kafka_fatal", "kafka_closed"}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolHooks:
    """Who is told: how many records were put and drained, and the reason of an element that was rejected late."""

    on_spooled: Callable[[int], None] = lambda _count: None
    on_drained: Callable[[int], None] = lambda _count: None
    on_rejected: Callable[[str, int], None] = lambda _reason, _count: None


class SpooledSender:
    """A `RecordSender` that has somewhere to put what Kafka does not take.

    Args:
        kafka: see `KafkaProducer.send_all`.
        rejected_topic: with its prefix.
        now_us: microseconds since 1970 UTC.
        kafka_s: how long an answer of Kafka is awaited.
    """

    def __init__(
        self,
        kafka: RecordSender,
        spool: Spool,
        rejected_topic: str,
        now_us: Callable[[], int],
        kafka_s: float = KAFKA_S,
        hooks: SpoolHooks | None = None,
    ) -> None:
        self._kafka = kafka
        self._spool = spool
        self._rejected_topic = rejected_topic
        self._now_us = now_us
        self._patience = SharedDeadline(kafka_s)
        self._hooks = hooks or SpoolHooks()
        self._last_leaving: asyncio.Future[None] | None = None

    def shut_because(self) -> str:
        """Why no record can be stored; `""` when it can: Kafka may be away."""
        return self._spool.refusing

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        """Return when all `records` are acknowledged by Kafka, or on disk.

        What is on disk may be in Kafka as well, where its answer was lost: the meter recognises repeats.

        Returns:
            As `KafkaProducer.send_all`; what the spool takes is refused later, by `drain`.

        Raises:
            Unavailable: neither Kafka nor the disk takes them.
        """
        if self._last_leaving is not None:
            await asyncio.wait((self._last_leaving,))
        if not self._spool.records:
            try:
                with self._patience.of_this_task():
                    return await self._kafka.send_all(records)
            except (Unavailable, TimeoutError) as error:
                reason = error.reason if isinstance(error, Unavailable) else "kafka_timeout"
                if not self._spool.records:
                    _log.warning("spooling_began", reason=reason)
        await self._spool.put(records)
        self._hooks.on_spooled(len(records))
        return {}

    async def drain(self) -> NoReturn:
        """Send what is in the spool, oldest first, for ever; one record at a time until Kafka takes one.

        Raises:
            Unavailable: the producer has given up for good.
        """
        at_once = 1
        try:
            while True:
                await self._spool.filled()
                try:
                    drained = await self._drain_some(at_once)
                except Unavailable as error:
                    if error.reason in _FOR_GOOD:
                        raise
                    self._let_in()
                    at_once = 1
                    await asyncio.sleep(_PROBE_EVERY_S)
                else:
                    at_once = _BATCH_RECORDS
                    self._hold_back_or_let_in()
                    if not drained:  # the put that filled it is still being written
                        await asyncio.sleep(_SOON_S)
        finally:
            self._let_in()

    def _hold_back_or_let_in(self) -> None:
        if not self._spool.records:
            _log.info("spool_drained")
            self._let_in()
        elif self._last_leaving is None and self._spool.records <= _BATCH_RECORDS and self._spool.bytes <= _BATCH_BYTES:
            self._last_leaving = asyncio.get_running_loop().create_future()

    def _let_in(self) -> None:
        if self._last_leaving is not None:
            self._last_leaving.set_result(None)
            self._last_leaving = None

    async def _drain_some(self, max_records: int) -> int:
        batch = await self._spool.oldest(max_records, _BATCH_BYTES)
        if not batch.records:
            return 0
        refused = await self._kafka.send_all(batch.records)
        if refused:
            await self._reject([batch.records[index] for index in refused])
        await self._spool.delete(batch)
        self._hooks.on_drained(len(batch.records))
        return len(batch.records)

    async def _reject(self, too_large: Sequence[Record]) -> None:
        """What Kafka refuses for its size would stand in the way of everything behind it."""
        why, at = InvalidElement(TOO_LARGE, "Kafka takes no record of this size"), self._now_us()
        told = [(self._rejected_topic, key, rejection(why, value, at), at // 1000) for _, key, value, _ in too_large]
        if await self._kafka.send_all(told):
            raise Unavailable("kafka_refused", "not even the rejection")
        self._hooks.on_rejected(TOO_LARGE, len(told))
