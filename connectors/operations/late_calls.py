"""Retries calls that were rejected as `beyond_horizon`: each is released, or recorded as known.

It runs beside the projector, in the process that owns the partition of the rejected topic. The projector's rows say
which dead letters wait; copies of dismissed calls do not. The dead letters are read from the topic, checked by the
function that `dlq requeue` uses, sent and marked. The process may be killed at any point: a call that was sent and not
marked is found as counted the next time. Two processes that send the same call send the same identity, which the ledger
counts once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec
import structlog

from connectors.config.deployment import Deployment
from connectors.kafka.topic_scan import OffsetRange, offset_range_of, scan
from connectors.operations.audit_record import audited
from connectors.operations.background_task import watch
from connectors.operations.dead_letters import CALLS, DeadLetter, dead_letter_of
from connectors.operations.requeue import requeuer
from connectors.operations.requeue_judge import BATCH, RequeueResult
from connectors.operations.sender import CommandProducer
from connectors.operations.usage_log import records_in
from connectors.postgres.pool import Database
from schemas.decoding import decoder
from schemas.money import ZERO, add, plain
from streams.runtime import clock

log = structlog.get_logger(__name__)

#: Period of the task, seconds.
EVERY_S: Final = 5.0
#: Bytes of dead letters in memory at once.
_MOST_BYTES: Final = 8 << 20
#: The most batches under one check of the log. The check must be much more recent than the ledgers' dedupe retention.
_BATCHES: Final = 20
#: If a call is refused within this time after its check, the ledger's clock is ahead, or the ledger was started again
#: in between. The call is then released again after this time, and not at once.
_CAME_BACK_US: Final = 3600 * 1_000_000
_NO_OFFSET: Final = (1 << 63) - 1
#: Not `open_rejected_calls`, for two reasons. What a person dismissed is never released automatically, not even if its copy
#: is an open dead letter because it lies in another partition, before the dismissed one, or in the topic after a lost one. And a
#: copy of a counted call is checked and marked, so that the next look does not find it.
_WAITING: Final = """
SELECT "offset" FROM rejected_calls late
WHERE partition = $1 AND reason = 'beyond_horizon' AND resolution IS NULL AND stage = 'meter'
    AND ("offset" > $2 OR "offset" = ANY($4::bigint[]))
    AND NOT EXISTS (
        SELECT FROM rejected_calls gone WHERE gone.resolution = 'purged' AND gone.call_digest = late.call_digest
    )
ORDER BY "offset" LIMIT $3
"""
_STANDS: Final = "SELECT next FROM projector_offsets WHERE topic = $1 AND partition = $2"


class _Checked(msgspec.Struct, gc=False):
    checked_at: int = 0


_decode = decoder(_Checked)


class LateCallMetrics(Protocol):
    """Counts late calls."""

    def late_calls(self, outcome: str, calls: int) -> None: ...


@dataclass(slots=True)
class _Partition:
    """The progress in one partition.

    Fields:
        readable_from: the projector must have read up to this offset before the rows show all marks.
        after: offset of the last dead letter that was handled.
        later: when each earlier dead letter that came back too soon is retried, by offset, microseconds since 1970 UTC.
    """

    readable_from: int
    after: int = -1
    later: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class LateCalls:
    """Retries late calls. Each process has one instance; `partition_tasks` are the partitions that it owns now, by
    `topic-partition`.
    """

    deployment: Deployment
    database: Database
    partition_tasks: Mapping[str, Any]
    sensors: LateCallMetrics
    make_sender: Callable[[], CommandProducer]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    now_us: Callable[[], int] = clock.now_us
    _places: dict[int, _Partition] = field(default_factory=dict)
    _sender: CommandProducer | None = None

    async def watch(self) -> None:
        """Run `once` periodically until cancelled. An expected error is logged, once for each cause, and retried."""
        await watch(
            self.once,
            self.sleep,
            EVERY_S,
            waits="late_calls_wait",
            refused=lambda: self.sensors.late_calls("failed", 0),
        )

    async def once(self) -> RequeueResult:
        """Handle all late calls that wait now in this process's partitions.

        Raises:
            Unavailable: `projection_behind`, or Kafka or Postgres does not answer. The calls wait.
        """
        topic = self.deployment.topics.rejected
        owned = {int(name.rpartition("-")[2]) for name in self.partition_tasks if name.rpartition("-")[0] == topic}
        for gone in self._places.keys() - owned:
            del self._places[gone]
        total = RequeueResult()
        for partition in sorted(owned):
            if await self._begun(topic, partition):
                while await self._requeue_batch(topic, partition, total):
                    pass
        return total

    async def _begun(self, topic: str, partition: int) -> bool:
        """Whether the rows have every mark that existed when this process got the partition."""
        place = self._places.get(partition)
        if place is None:
            stretch = await asyncio.to_thread(offset_range_of, self.deployment.kafka, topic)
            place = self._places[partition] = _Partition(stretch.ranges[partition][1])
        async with self.database.connection() as connection:
            stands = await connection.fetchval(_STANDS, topic, partition) or 0
        if stands < place.readable_from:
            # The projector never sees the offsets of transaction markers and of records in aborted transactions.
            left = OffsetRange(topic, {partition: (stands, place.readable_from)})
            if await asyncio.to_thread(records_in, self.deployment.kafka, left):
                return False
            place.readable_from = 0
        return True

    async def _requeue_batch(self, topic: str, partition: int, total: RequeueResult) -> bool:
        """Requeue some batches under one check of the log; return whether there may be more."""
        if not await self._waiting(partition):
            return False
        if self._sender is None:
            self._sender = self.make_sender()
        sender, place = self._sender, self._places[partition]
        async with requeuer(self.deployment, sender, self.database, name=f"late-{partition}") as at:
            for _ in range(_BATCHES):
                offsets = await self._waiting(partition)
                if not offsets:
                    return False
                dead_letters, last = await asyncio.to_thread(self._read, topic, partition, offsets)
                done = RequeueResult()
                early = {
                    dead_letter.offset: at_us
                    for dead_letter in dead_letters
                    if (at_us := _again_at_us(dead_letter)) > self.now_us()
                }
                fresh = [dead_letter for dead_letter in dead_letters if dead_letter.offset not in early]
                done.refuse("came_back", len(early))
                if fresh:
                    audit_id = await asyncio.to_thread(self._audited, sender, partition, fresh)
                    result = await at.requeue(fresh, audit_id, lambda _count: None)
                    done.requeued, done.known, done.usd = result.requeued, result.known, result.usd
                    for reason, count in result.reasons.items():
                        done.refuse(reason, count)
                for offset in [known for known in place.later if known <= last and known in offsets]:
                    del place.later[offset]
                place.later.update(early)
                place.after = max(place.after, last)
                self._log_result(partition, done)
                _add(total, done)
        return True

    async def _waiting(self, partition: int) -> list[int]:
        place, now_us = self._places[partition], self.now_us()
        due = [offset for offset, at_us in place.later.items() if at_us <= now_us]
        # Dead letters that are due again are read separately. They lie far before the new ones, and one read for both
        # would fetch all records in between.
        after = _NO_OFFSET if due else place.after
        async with self.database.connection() as connection:
            rows = await connection.fetch(_WAITING, partition, after, BATCH, due)
        if due and len(rows) < BATCH:  # an operator has handled the others meanwhile
            for offset in set(due).difference(row[0] for row in rows):
                del place.later[offset]
            if not rows:
                return await self._waiting(partition)
        return [row[0] for row in rows]

    def _read(self, topic: str, partition: int, offsets: list[int]) -> tuple[list[DeadLetter], int]:
        """Read the dead letters at `offsets`, as many as fit into memory; return them and the last offset that was
        read.
        """
        missing, size = set(offsets), 0
        dead_letters: list[DeadLetter] = []
        for message in self._messages(topic, partition, offsets):
            if message.offset() not in missing:
                continue
            dead_letters.append(dead_letter_of(CALLS, message, self.deployment.customer_id_fields))
            size += len(dead_letters[-1].value)
            if size > _MOST_BYTES:
                return dead_letters, dead_letters[-1].offset
        return dead_letters, offsets[-1]

    def _messages(self, topic: str, partition: int, offsets: list[int]) -> Iterator[Any]:
        return scan(self.deployment.kafka, OffsetRange(topic, {partition: (offsets[0], offsets[-1] + 1)}))

    def _audited(self, sender: CommandProducer, partition: int, dead_letters: list[DeadLetter]) -> str:
        usd = ZERO
        for dead_letter in dead_letters:
            usd = add(usd, dead_letter.usd or ZERO)
        target = {"kind": CALLS, "reason": "beyond_horizon", "partition": str(partition)}
        return audited(
            self.deployment, sender, "late.release", target, actor="meterbridge", count=len(dead_letters), cost_usd=usd
        )

    def _log_result(self, partition: int, done: RequeueResult) -> None:
        for outcome, calls in (("requeued", done.requeued), ("known", done.known), ("waiting", done.impossible)):
            if calls:
                self.sensors.late_calls(outcome, calls)
        log.info(
            "late_calls_released",
            partition=partition,
            released=done.requeued,
            usd=plain(done.usd),
            known=done.known,
            waiting=done.reasons,
        )


def _again_at_us(dead_letter: DeadLetter) -> int:
    """Return when the call may be released again, microseconds since 1970 UTC; 0 = now."""
    try:
        checked_at = _decode(dead_letter.stored).checked_at
    except msgspec.DecodeError:
        return 0
    at_us = dead_letter.at_ms * 1000
    return at_us + _CAME_BACK_US if checked_at > 0 and at_us - checked_at < _CAME_BACK_US else 0


def _add(total: RequeueResult, done: RequeueResult) -> None:
    total.requeued += done.requeued
    total.known += done.known
    total.usd = add(total.usd, done.usd)
    for reason, count in done.reasons.items():
        total.refuse(reason, count)
