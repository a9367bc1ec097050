"""Reports in `billing.deliveries` which partitions of this process are halted, so that the projector can announce it
(docs/adr/0054).

The task has its own connection. So the halt of a partition that cannot write is reported, too. A report that cannot be
written is retried, and delays no other work.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.records import DeliveryAttempt
from streams.runtime.transactions import stop_producer

#: Period of the task, and wait after a failure, seconds.
EVERY_S: Final = 1.0
AGAIN_S: Final = 5.0
#: Time limit of one report, seconds.
_LIMIT_S: Final = 10.0
#: `direction`, and the two values of `event_type`.
STATE: Final = "state"
HALTED, RUNNING = "partition.halted", "partition.running"

log = structlog.get_logger(__name__)
_encode = msgspec.json.Encoder().encode
#: For each partition (`topic/number`) why it is halted; `""` = it runs.
States = dict[str, str]
Write = Callable[[Iterable[bytes]], Awaitable[None]]


@dataclass(slots=True)
class PartitionReports:
    """Reports halted partitions. Each process has one instance.

    Fields:
        role: the role in the reports.
        partition_tasks: the partitions of this process, by number or by `topic-number`.
        topic: topic of the partitions that `partition_tasks` has by number.
        halted: the reasons of halted partitions, by topic and number.
        write: makes records of `billing.deliveries` durable, or raises KafkaError or TimeoutError.
    """

    role: str
    partition_tasks: Mapping[Any, Any]
    topic: str
    halted: Callable[[], Mapping[tuple[str, int], str]]
    write: Write
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    now_us: Callable[[], int] = lambda: time.time_ns() // 1000
    _reported: States = field(default_factory=dict)

    async def watch(self) -> None:
        """Run `once` periodically until cancelled."""
        failing = False
        while True:
            try:
                await self.once()
            except (KafkaError, TimeoutError) as error:
                if not failing:
                    log.warning("partition_reports_wait", role=self.role, error=type(error).__name__)
                failing = True
                await self.sleep(AGAIN_S)
            else:
                failing = False
                await self.sleep(EVERY_S)

    async def once(self) -> None:
        """Report the changes since the last report. A running partition is reported once by each process, and after a
        halt.

        A partition that another process took over is forgotten, because that process reports it.

        Raises:
            KafkaError, TimeoutError: no report is known to be durable. All are sent again in the next round.
        """
        states = self._states()
        for gone in self._reported.keys() - states.keys():
            if gone not in self._owned():
                del self._reported[gone]
        changed = {place: reason for place, reason in states.items() if self._reported.get(place) != reason}
        if changed:
            await self.write([_encode(self._record(place, reason)) for place, reason in changed.items()])
            self._reported |= changed

    def _states(self) -> States:
        halted = {f"{topic}/{number}": reason for (topic, number), reason in self.halted().items()}
        owned = self._owned()
        opened = [place for place, task in owned.items() if task.expected is not None]
        return dict.fromkeys(opened, "") | {place: reason for place, reason in halted.items() if place in owned}

    def _owned(self) -> dict[str, Any]:
        return {self._place(key): task for key, task in self.partition_tasks.items()}

    def _place(self, key: Any) -> str:
        topic, _, number = str(key).rpartition("-")
        return f"{topic or self.topic}/{number}"

    def _record(self, place: str, reason: str) -> DeliveryAttempt:
        kind = HALTED if reason else RUNNING
        return DeliveryAttempt(self.now_us(), STATE, kind, 0, 0, error=reason, source=f"{self.role}/{place}")


def writer_to(kafka: Mapping[str, Any], topic: str) -> Write:
    """Make a `Write` that opens a connection for each call, because reports are rare.

    Args:
        kafka: connection options for aiokafka.
        topic: `billing.deliveries` with its prefix.
    """

    async def write(records: Iterable[bytes]) -> None:
        producer = AIOKafkaProducer(**kafka, acks="all", enable_idempotence=True)
        try:
            async with asyncio.timeout(_LIMIT_S):
                await producer.start()
                sent = [await producer.send(topic, record, key=b"partition") for record in records]
                await producer.flush()
                await asyncio.gather(*sent)  # `flush` does not report records that Kafka refused
        finally:
            await stop_producer(producer)

    return write
