"""Retries calls that were rejected as `beyond_horizon`: each is released, or recorded as known.

Runs beside the projector, in the process that owns a partition of the rejected topic. The rows that the projector wrote
say which letters wait, except copies of dismissed calls; the letters are read from the topic, judged by the function that `dlq requeue` uses, sent and
marked. Killed at any point it does no harm: what was sent and not marked is found counted the next time, and two that
send one call at once send one identity, which the ledger counts once.
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
from connectors.operations.requeue import BATCH, RequeueResult, requeuer
from connectors.operations.sender import CommandProducer
from connectors.operations.usage_log import records_in
from connectors.postgres.pool import Database
from schemas.decoding import decoder
from schemas.money import ZERO, add, plain, quantum
from streams.runtime import clock

log = structlog.get_logger(__name__)

#: How often it looks.
EVERY_S: Final = 5.0
#: Bytes of dead letters in memory at once.
_MOST_BYTES: Final = 8 << 20
#: Batches under one check of the log: its moment must stay well within the ledgers' memory.
_BATCHES: Final = 20
#: A call that was refused so soon after it was checked meets a clock that runs ahead, or a ledger that was begun again in
#: between: it is released again when this has passed, not at once.
_CAME_BACK_US: Final = 3600 * 1_000_000
_NO_OFFSET: Final = (1 << 63) - 1
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
    """How far one partition has come.

    Fields:
        readable_from: the projector must have come so far before the rows tell what is marked already.
        after: the last dead letter that was dealt with.
        later: letters before it that came back too soon, by offset: when each is looked at again, microseconds since
            1970 UTC.
    """

    readable_from: int
    after: int = -1
    later: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class LateCalls:
    """Of one process; `partition_tasks` are its partitions now, by `topic-partition`."""

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
        """Look again and again. An expected error is logged, once for each cause, and the next attempt follows."""
        await watch(
            self.once,
            self.sleep,
            EVERY_S,
            waits="late_calls_wait",
            refused=lambda: self.sensors.late_calls("failed", 0),
        )

    async def once(self) -> RequeueResult:
        """Deal with all that waits now in this process's partitions.

        Raises:
            Unavailable: `projection_behind`, or a neighbour is away: it waits.
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
        """Whether the rows tell of every mark that there was when this process got the partition."""
        place = self._places.get(partition)
        if place is None:
            stretch = await asyncio.to_thread(offset_range_of, self.deployment.kafka, topic)
            place = self._places[partition] = _Partition(stretch.ranges[partition][1])
        async with self.database.connection() as connection:
            stands = await connection.fetchval(_STANDS, topic, partition) or 0
        if stands < place.readable_from:
            # Markers, and what a transaction wrote that was aborted, are offsets that the projector never sees.
            left = OffsetRange(topic, {partition: (stands, place.readable_from)})
            if await asyncio.to_thread(records_in, self.deployment.kafka, left):
                return False
            place.readable_from = 0
        return True

    async def _requeue_batch(self, topic: str, partition: int, total: RequeueResult) -> bool:
        """Requeue some batches under one check of the log. Returns whether there may be more."""
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
        # Letters that are due are read separately. They lie far before the new ones, and one read for both would fetch everything between.
        after = _NO_OFFSET if due else place.after
        async with self.database.connection() as connection:
            rows = await connection.fetch(_WAITING, partition, after, BATCH, due)
        if due and len(rows) < BATCH:  # the others were dealt with by an operator meanwhile
            for offset in set(due).difference(row[0] for row in rows):
                del place.later[offset]
            if not rows:
                return await self._waiting(partition)
        return [row[0] for row in rows]

    def _read(self, topic: str, partition: int, offsets: list[int]) -> tuple[list[DeadLetter], int]:
        """The dead letters at `offsets`, as many as fit into memory, and the last offset that was looked at."""
        missing, unit, size = set(offsets), quantum(self.deployment.policy.cost_decimals), 0
        dead_letters: list[DeadLetter] = []
        for message in self._messages(topic, partition, offsets):
            if message.offset() not in missing:
                continue
            dead_letters.append(dead_letter_of(CALLS, message, unit, self.deployment.customer_id_fields))
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
    """When it may be released, microseconds since 1970 UTC: 0 = now; later where it came back at once."""
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
