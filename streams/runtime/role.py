"""A role: a Faust app with one agent a topic, which passes batches to partition tasks, one for each assigned partition.

Each role is a consumer group of its own, because all members of a Faust group must run the same topology.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from faust.types.tuples import TP

from schemas.errors import LedgerBroken, TopicProblem
from streams.runtime.compacted_table import TopicTable
from streams.runtime.faust_transport import App
from streams.runtime.partition_task import PartitionProcessor, PartitionTask

log = structlog.get_logger(__name__)

#: How long a halted partition waits before it is opened again, seconds. An operator may have repaired the cause
#: meanwhile.
HALT_S = 60.0
#: How long a reopened partition must run to count as resumed, seconds. An offset gap is detected only at the first
#: batch.
_STEADY_S = 5.0
#: The longest wait for the tables of a role to stop, seconds.
_TABLES_S = 1.0
#: Exit code of a worker that ends itself because it can no longer work correctly (sysexits EX_SOFTWARE).
EXIT_FATAL = 70


class RoleSensors(Protocol):
    """The reports of a role."""

    def partition_halted(self, topic: str, partition: int, reason: str) -> None: ...
    def partition_resumed(self, topic: str, partition: int, reason: str) -> None: ...
    def fetch_gap(self, topic: str, partition: int, gaps: int) -> None: ...
    def following(self, table: str, lag_s: Callable[[], float]) -> None: ...


@dataclass(slots=True)
class _Halt:
    """A halted partition task. `look_at`: the loop's time at which it is opened again."""

    partition_task: PartitionTask
    reason: str
    look_at: float


class Role:
    """The partition tasks of one app on one topic.

    Args:
        make_work: creates the work for a newly assigned partition.
        linger_s: see `PartitionTask`.
        leave: ends the role; called with the exit code of a process that runs no other.
        halt_s: see `HALT_S`.
        tables: what the works read beside their topic; they begin to follow it themselves, and `close` stops it.
    """

    def __init__(
        self,
        app: App,
        topic: str,
        make_work: Callable[[int], PartitionProcessor],
        sensors: RoleSensors,
        linger_s: float,
        leave: Callable[[int], None] = os._exit,
        halt_s: float = HALT_S,
        tables: Sequence[TopicTable] = (),
    ) -> None:
        self.app = app
        self.topic = topic
        self.partition_tasks: dict[int, PartitionTask] = {}
        self._make_work = make_work
        self._sensors = sensors
        self._linger_s = linger_s
        self._leave = leave
        self.halt_s = halt_s
        self._tables = tables
        self._halts: dict[int, _Halt] = {}
        app.on_partitions_assigned.connect(self._assigned, weak=False)
        app.on_partitions_revoked.connect(self._revoked, weak=False)
        app.route(topic, self._route)
        app.every_tick(self._punctuate)

    async def close(self) -> None:
        """Close all partition tasks at the same time, and then the tables that they read, also where a partition task does not close.

        Raises:
            What the close of a partition task raised.
        """
        # Signals belong to Faust's class of apps, and would keep this role as long as its process.
        self.app.on_partitions_assigned.disconnect(self._assigned, weak=False)
        self.app.on_partitions_revoked.disconnect(self._revoked, weak=False)
        partition_tasks = [self.partition_tasks.pop(partition) for partition in list(self.partition_tasks)]
        closing = [asyncio.ensure_future(partition_task.close()) for partition_task in partition_tasks]
        if closing:
            await asyncio.wait(closing)
        if self._tables:
            # Kafka may not answer, and nothing is written here.
            await asyncio.wait([asyncio.ensure_future(table.stop()) for table in self._tables], timeout=_TABLES_S)
        for one in closing:
            one.result()

    async def _route(self, stream: Any) -> None:
        async for event in stream.events():
            partition_task = self.partition_tasks.get(event.message.partition)
            if partition_task is not None:
                partition_task.offer(event.value)

    async def _punctuate(self) -> None:
        for partition_task in self.partition_tasks.values():
            partition_task.punctuate()
            if partition_task.gaps:
                self._sensors.fetch_gap(partition_task.tp.topic, partition_task.tp.partition, partition_task.gaps)
                partition_task.gaps = 0
        for partition in list(self._halts):
            await self._look_again(partition)

    async def _look_again(self, partition: int) -> None:
        """Open a halted partition again periodically, because the cause may be repaired."""
        halt, partition_task, now = (
            self._halts[partition],
            self.partition_tasks.get(partition),
            asyncio.get_running_loop().time(),
        )
        if partition_task is None:  # another worker owns the partition
            self._resumed(partition, halt)
        elif now < halt.look_at:
            return
        elif partition_task is not halt.partition_task:
            if partition_task.expected is not None:
                self._resumed(partition, halt)
        else:
            tp = partition_task.tp
            await partition_task.close()
            if self.partition_tasks.get(partition) is partition_task:
                self.app.consumer.resume_partitions([tp])
                self.partition_tasks[partition] = self._lane(tp)
                halt.look_at = now + min(_STEADY_S, self.halt_s)

    def _resumed(self, partition: int, halt: _Halt) -> None:
        del self._halts[partition]
        log.info("partition_resumed", topic=self.topic, partition=partition, reason=halt.reason)
        self._sensors.partition_resumed(self.topic, partition, halt.reason)

    def _lane(self, tp: TP) -> PartitionTask:
        work = self._make_work(tp.partition)
        return PartitionTask(tp, work, self.app.consumer, self._fatal, linger_s=self._linger_s)

    async def _assigned(self, _app: Any, assigned: set[TP], **_: Any) -> None:
        for tp in assigned:
            if tp.topic == self.topic and tp.partition not in self.partition_tasks:
                self.partition_tasks[tp.partition] = self._lane(tp)

    async def _revoked(self, _app: Any, revoked: set[TP], **_: Any) -> None:
        partition_tasks = [
            self.partition_tasks.pop(tp.partition)
            for tp in revoked
            if tp.topic == self.topic and tp.partition in self.partition_tasks
        ]
        await asyncio.gather(*(partition_task.close() for partition_task in partition_tasks))

    def _fatal(self, tp: TP, error: BaseException) -> None:
        """Halt the partition with an alarm if its topic or ledger is wrong; end the role after any other error."""
        if isinstance(error, TopicProblem | LedgerBroken):
            self._halted(tp, error.reason, error.detail)
            return
        log.critical("worker_ended", topic=tp.topic, partition=tp.partition, error=repr(error), exc_info=error)
        sys.stderr.flush()
        self._leave(EXIT_FATAL)

    def _halted(self, tp: TP, reason: str, detail: str) -> None:
        """Report each reason once. The alarm stays until the partition continues."""
        before, partition_task = self._halts.get(tp.partition), self.partition_tasks.get(tp.partition)
        if before is not None and before.reason != reason:
            self._sensors.partition_resumed(tp.topic, tp.partition, before.reason)
        if before is None or before.reason != reason:
            log.error("partition_halted", topic=tp.topic, partition=tp.partition, reason=reason, detail=detail)
            self._sensors.partition_halted(tp.topic, tp.partition, reason)
        if partition_task is not None:
            self._halts[tp.partition] = _Halt(partition_task, reason, asyncio.get_running_loop().time() + self.halt_s)


class MultiTopicRole(Mapping[str, PartitionTask]):
    """Roles of one app, one a topic: one consumer group that reads several topics.

    As a mapping it holds the current partition tasks by `topic-partition`.
    """

    def __init__(self, *roles: Role) -> None:
        self.app = roles[0].app
        self._roles = roles

    @property
    def partition_tasks(self) -> Mapping[str, PartitionTask]:
        """The partition tasks of all topics."""
        return self

    async def close(self) -> None:
        """See `Role.close`."""
        closing = [asyncio.ensure_future(role.close()) for role in self._roles]
        await asyncio.wait(closing)
        for one in closing:
            one.result()

    def __getitem__(self, place: str) -> PartitionTask:
        return self._by_place()[place]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_place())

    def __len__(self) -> int:
        return len(self._by_place())

    def _by_place(self) -> dict[str, PartitionTask]:
        return {
            f"{role.topic}-{number}": partition_task
            for role in self._roles
            for number, partition_task in role.partition_tasks.items()
        }


AnyRole = Role | MultiTopicRole
