"""The projector's work on one partition: writes records as rows into Postgres, together with the next offset.

Postgres stores the next offset in the same transaction as the rows. So a batch is projected wholly or not at all, and
an owner that was frozen sees that the offset has moved. While Postgres does not answer, the topic keeps the records. If
Postgres refuses a row permanently, the place of its record is stored, and the projector continues.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar

import structlog
from aiokafka import ConsumerRecord, TopicPartition

from schemas.errors import Rejected, TopicProblem, Unavailable
from schemas.reasons import POSTGRES_SLOW
from streams.core.delivery.backoff import RetryPolicy
from streams.runtime.offsets import standing

log = structlog.get_logger(__name__)

#: The most records of one Postgres transaction.
PROJECT_LIMIT = 4000
#: Number of ticks without a fetch batch after which the partition counts as read to its end.
_QUIET_TICKS = 2
#: After this many timeouts in a row, records are written in smaller parts: together they may take too long every time.
_SLOW_TIMES = 2
T = TypeVar("T")


class Projected(NamedTuple):
    """The result of a fetch batch: number of new or changed rows by table, and of skipped records by reason.

    Fields:
        doubled: billed calls that look like another billed call, by kind.
        undebited: calls of a prepaid account that was not debited for them, by reason.
    """

    rows: Mapping[str, int]
    skipped: Mapping[str, int]
    doubled: Mapping[str, int] = MappingProxyType({})
    undebited: Mapping[str, int] = MappingProxyType({})


class PartitionPosition(NamedTuple):
    """A partition's position: the id of its topic, and the offset of the next record."""

    topic_id: str
    next: int


class _TooManyAtOnce(Exception):
    """Postgres did not write these records in time, several times."""


class Projection(Protocol):
    """The requests of the projector to Postgres. All methods raise Unavailable if Postgres does not answer."""

    async def place(self, tp: TopicPartition) -> PartitionPosition | None:
        """Return a partition's position; None before its first fetch batch."""

    async def begin(self, tp: TopicPartition, place: PartitionPosition) -> PartitionPosition:
        """Store a first position, unless there is one; return the stored position."""

    async def project(
        self, tp: TopicPartition, expected: int, following: int, records: Sequence[ConsumerRecord]
    ) -> Projected | None:
        """Write the rows of `records` and move the partition from `expected` to `following`, or do neither.

        None = the position is no longer `expected`. Raises: Rejected: Postgres refuses a row permanently.
        """

    async def pass_over(
        self, tp: TopicPartition, expected: int, record: ConsumerRecord, problem: str
    ) -> Projected | None:
        """Store that `record` becomes no row, and why, and move the partition behind it; None as in `project`."""


class ProjectSensors(Protocol):
    """The reports of the projector."""

    def projected(self, topic: str, projected: Projected) -> None: ...
    def projection_failed(self, reason: str) -> None: ...
    def projecting(self, topic: str, partition: int, oldest_ms: int | None) -> None: ...


@dataclass(slots=True)
class ProjectWork:
    """Implements `streams.runtime.partition_task.PartitionProcessor` for the projector."""

    tp: TopicPartition
    kafka: Mapping[str, Any] = field(repr=False)
    group: str
    topic_id: str
    projection: Projection
    policy: RetryPolicy
    sleep: Callable[[float], Awaitable[None]]
    sensors: ProjectSensors
    _next: int = field(default=0, init=False)
    _asking: bool = field(default=False, init=False)
    _quiet: int = field(default=0, init=False)
    _at_once: int = field(default=PROJECT_LIMIT, init=False)
    _logged: set[str] = field(default_factory=set, init=False)

    async def open(self) -> int:
        """Return the position in Postgres. An unknown partition starts at the begin of the log.

        Raises:
            TopicProblem: `offset_out_of_range`: the topic has lost records that were not projected. `topic_recreated`:
                the topic was deleted and created again.
        """
        place = await self._patiently(lambda: self.projection.place(self.tp))
        offsets = await standing(self.kafka, self.group, self.tp)
        if place is None:
            first = PartitionPosition(self.topic_id, offsets.begin)
            place = await self._patiently(lambda: self.projection.begin(self.tp, first))
        if place.topic_id != self.topic_id:
            raise TopicProblem("topic_recreated", f"{self.tp.topic} is not the topic that was projected so far")
        offsets.check(self.tp, place.next)
        self._next = place.next
        return place.next

    async def process(self, records: Sequence[ConsumerRecord]) -> int:
        """Project records, in transactions of at most `PROJECT_LIMIT` records, and of fewer while these take too long.

        Raises:
            Unavailable: `stale_projector`: another process has moved the position meanwhile. The partition must be
                opened again.
        """
        self._quiet = 0
        while records:
            part = records[: self._at_once]
            self.sensors.projecting(self.tp.topic, self.tp.partition, part[0].timestamp)
            try:
                await self._project(part)
                self._at_once = min(self._at_once + self._at_once // 8 + 1, PROJECT_LIMIT)
            except _TooManyAtOnce:
                self._at_once = max(1, min(self._at_once, len(part)) // 2)
            records = [record for record in records if record.offset >= self._next]
        return self._next

    async def punctuate(self) -> None:
        """Report that a partition without new records is not behind."""
        self._quiet += 1
        if self._quiet >= _QUIET_TICKS:
            self.sensors.projecting(self.tp.topic, self.tp.partition, None)

    async def close(self) -> None:
        """Do nothing, because no transaction is open between two fetch batches."""
        self.sensors.projecting(self.tp.topic, self.tp.partition, None)

    def in_transaction(self) -> bool:
        """Return whether a request to Postgres is running. `close` then waits shortly for the response."""
        return self._asking

    async def _project(self, records: Sequence[ConsumerRecord]) -> None:
        following = records[-1].offset + 1
        try:
            projected = await self._patiently(
                lambda: self.projection.project(self.tp, self._next, following, records), len(records)
            )
        except Rejected as refusal:
            if len(records) > 1:
                for half in (records[: len(records) // 2], records[len(records) // 2 :]):
                    await self._project(half)
                return
            problem = refusal.detail
            projected = await self._patiently(
                lambda: self.projection.pass_over(self.tp, self._next, records[0], problem)
            )
        if projected is None:
            raise Unavailable(
                "stale_projector", f"{self.tp.topic}-{self.tp.partition} no longer stands at {self._next}"
            )
        self._next = following
        self.sensors.projected(self.tp.topic, projected)
        self._count(projected, records[0].offset)

    def _count(self, projected: Projected, offset: int) -> None:
        """Log each reason once; the metric and the table behind `meterbridge db unprojected` have every case."""
        for reason in projected.skipped.keys() - {"repeated"} - self._logged:
            self._logged.add(reason)
            see = "meterbridge db unprojected"
            log.error("record_not_projected", **self._place(), reason=reason, from_offset=offset, see=see)

    async def _patiently(self, ask: Callable[[], Awaitable[T]], count: int = 1) -> T:
        """Repeat `ask`, which is about `count` records, until Postgres answers. Raises: _TooManyAtOnce."""
        failures = slow = 0
        while True:
            try:
                self._asking = True
                answer = await ask()
            except Unavailable as error:
                failures += 1
                self.sensors.projection_failed(error.reason)
                if failures == 1:
                    log.warning("projection_held", **self._place(), reason=error.reason, detail=error.detail)
                slow = slow + 1 if error.reason == POSTGRES_SLOW else 0
                if count > 1 and slow >= _SLOW_TIMES:
                    raise _TooManyAtOnce from error
            else:
                if failures:
                    log.info("projection_resumed", **self._place(), failures=failures)
                return answer
            finally:
                self._asking = False
            await self.sleep(self.policy.wait_s(failures))

    def _place(self) -> dict[str, Any]:
        return {"topic": self.tp.topic, "partition": self.tp.partition}
