"""The projector's work on one partition: writes records as rows into Postgres, together with the next offset.

Postgres stores the next offset in the same transaction as the rows. So a batch is projected wholly or not at all, and
an owner that was frozen sees that the offset has moved. While Postgres does not answer, the topic keeps the records. If
Postgres refuses a row permanently, the place of its record is stored, and the projector continues.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar

import structlog
from aiokafka import ConsumerRecord, TopicPartition

from schemas.errors import Rejected, TopicProblem, Unavailable
from streams.core.delivery.backoff import RetryPolicy
from streams.runtime.offsets import standing

log = structlog.get_logger(__name__)

#: The most records of one Postgres transaction.
PROJECT_LIMIT = 4000
#: Number of ticks without a fetch batch after which the partition counts as read to its end.
_QUIET_TICKS = 2
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


class ProjectWork:
    """Implements `streams.runtime.partition_task.PartitionProcessor` for the projector."""

    def __init__(
        self,
        tp: TopicPartition,
        kafka: Mapping[str, Any],
        group: str,
        topic_id: str,
        projection: Projection,
        policy: RetryPolicy,
        sleep: Callable[[float], Awaitable[None]],
        sensors: ProjectSensors,
    ) -> None:
        self._tp = tp
        self._kafka = kafka
        self._group = group
        self._topic_id = topic_id
        self._projection = projection
        self._policy = policy
        self._sleep = sleep
        self._sensors = sensors
        self._next = 0
        self._asking = False
        self._quiet = 0
        self._logged: set[str] = set()

    async def open(self) -> int:
        """Return the position in Postgres. An unknown partition starts at the begin of the log.

        Raises:
            TopicProblem: `offset_out_of_range`: the topic has lost records that were not projected. `topic_recreated`:
                the topic was deleted and created again.
        """
        place = await self._patiently(lambda: self._projection.place(self._tp))
        offsets = await standing(self._kafka, self._group, self._tp)
        if place is None:
            first = PartitionPosition(self._topic_id, offsets.begin)
            place = await self._patiently(lambda: self._projection.begin(self._tp, first))
        if place.topic_id != self._topic_id:
            raise TopicProblem("topic_recreated", f"{self._tp.topic} is not the topic that was projected so far")
        offsets.check(self._tp, place.next)
        self._next = place.next
        return place.next

    async def process(self, records: Sequence[ConsumerRecord]) -> int:
        """Project records, in transactions of at most `PROJECT_LIMIT` records.

        Raises:
            Unavailable: `stale_projector`: another process has moved the position meanwhile. The partition must be
                opened again.
        """
        self._quiet = 0
        for start in range(0, len(records), PROJECT_LIMIT):
            part = records[start : start + PROJECT_LIMIT]
            self._sensors.projecting(self._tp.topic, self._tp.partition, part[0].timestamp)
            await self._project(part)
        return self._next

    async def punctuate(self) -> None:
        """Report that a partition without new records is not behind."""
        self._quiet += 1
        if self._quiet >= _QUIET_TICKS:
            self._sensors.projecting(self._tp.topic, self._tp.partition, None)

    async def close(self) -> None:
        """Do nothing, because no transaction is open between two fetch batches."""
        self._sensors.projecting(self._tp.topic, self._tp.partition, None)

    def in_transaction(self) -> bool:
        """Return whether a request to Postgres is running. `close` then waits shortly for the response."""
        return self._asking

    async def _project(self, records: Sequence[ConsumerRecord]) -> None:
        following = records[-1].offset + 1
        try:
            projected = await self._patiently(
                lambda: self._projection.project(self._tp, self._next, following, records)
            )
        except Rejected as refusal:
            if len(records) > 1:
                for half in (records[: len(records) // 2], records[len(records) // 2 :]):
                    await self._project(half)
                return
            problem = refusal.detail
            projected = await self._patiently(
                lambda: self._projection.pass_over(self._tp, self._next, records[0], problem)
            )
        if projected is None:
            raise Unavailable(
                "stale_projector", f"{self._tp.topic}-{self._tp.partition} no longer stands at {self._next}"
            )
        self._next = following
        self._sensors.projected(self._tp.topic, projected)
        self._count(projected, records[0].offset)

    def _count(self, projected: Projected, offset: int) -> None:
        """Log each reason once; the metric and the table behind `meterbridge db unprojected` have every case."""
        for reason in projected.skipped.keys() - {"repeated"} - self._logged:
            self._logged.add(reason)
            see = "meterbridge db unprojected"
            log.error("record_not_projected", **self._place(), reason=reason, from_offset=offset, see=see)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Repeat `ask` until Postgres answers."""
        failures = 0
        while True:
            try:
                self._asking = True
                answer = await ask()
            except Unavailable as error:
                failures += 1
                self._sensors.projection_failed(error.reason)
                if failures == 1:
                    log.warning("projection_held", **self._place(), reason=error.reason, detail=error.detail)
            else:
                if failures:
                    log.info("projection_resumed", **self._place(), failures=failures)
                return answer
            finally:
                self._asking = False
            await self._sleep(self._policy.wait_s(failures))

    def _place(self) -> dict[str, Any]:
        return {"topic": self._tp.topic, "partition": self._tp.partition}
