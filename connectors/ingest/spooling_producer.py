"""Sends records to Kafka, or to the spool while Kafka does not answer, and later from the spool to Kafka (ADR 0011).

| the spool | a new record goes | why |
|---|---|---|
| is empty | to Kafka; into the spool if Kafka does not acknowledge it in time | |
| has records | into the spool | records reach a partition in order, and no sender waits for a broker that is known to fail |
| its last batch is being sent | waits some milliseconds for that, then to Kafka | under steady traffic the spool would never become empty |
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

#: How long Kafka may take. LiteLLM's sender gives up after 5 s, so the rest of that time is left for the disk.
KAFKA_S = 3.0

_BATCH_RECORDS, _BATCH_BYTES = 1000, 1 << 20
_PROBE_EVERY_S, _SOON_S = 0.5, 0.01
#: Reasons after which the producer never sends again, and the process must be restarted.
_FOR_GOOD = {"kafka_fatal", "kafka_closed"}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolHooks:
    """Called with the number of records that were spooled and drained, and with the reason of an element that was rejected
    late."""

    on_spooled: Callable[[int], None] = lambda _count: None
    on_drained: Callable[[int], None] = lambda _count: None
    on_rejected: Callable[[str, int], None] = lambda _reason, _count: None


class SpooledSender:
    """A `RecordSender` that writes records to disk if Kafka does not accept them.

    Args:
        kafka: see `KafkaProducer.send_all`.
        rejected_topic: with its prefix.
        now_us: microseconds since 1970 UTC.
        kafka_s: how many seconds an acknowledgement of Kafka may take.
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
        """Return the reason why no record can be stored; `""` if records can be stored, which is also true while the
        spool replaces Kafka.
        """
        return self._spool.refusing

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        """Return when all `records` are acknowledged by Kafka, or on disk.

        Records on disk may also be in Kafka, if only its acknowledgement was lost; the meter recognises duplicates.

        Returns:
            See `KafkaProducer.send_all`; records in the spool may be refused later, by `drain`.

        Raises:
            Unavailable: neither Kafka nor the disk accepts them.
        """
        if self._last_leaving is not None:
            await asyncio.wait((self._last_leaving,))
        if not self._spool.records:
            try:
                with self._patience:
                    return await self._kafka.send_all(records)
            except (Unavailable, TimeoutError) as error:
                reason = error.reason if isinstance(error, Unavailable) else "kafka_timeout"
                if not self._spool.records:
                    _log.warning("spooling_began", reason=reason)
        await self._spool.put(records)
        self._hooks.on_spooled(len(records))
        return {}

    async def drain(self) -> NoReturn:
        """Send the records of the spool, the oldest first, until cancelled. Send only one record at a time until Kafka
        accepts one.

        Raises:
            Unavailable: the producer never sends again.
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
                    if not drained:  # the record that filled it is still being written
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
        """Reject records that Kafka refuses for their size: they would block everything behind them."""
        why, at = InvalidElement(TOO_LARGE, "Kafka refuses a record of this size"), self._now_us()
        rejections = [
            (self._rejected_topic, key, rejection(why, value, at), at // 1000) for _, key, value, _ in too_large
        ]
        if await self._kafka.send_all(rejections):
            raise Unavailable("kafka_refused", "Kafka refuses the rejection too")
        self._hooks.on_rejected(TOO_LARGE, len(rejections))
