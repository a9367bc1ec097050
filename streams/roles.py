"""A role is a Faust app whose agent, one a topic, routes chunks to lanes, a lane for each partition it is assigned.

Each role is its own consumer group: all members of a Faust group must run the same topology.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import structlog
from faust.types.tuples import TP

from schemas.errors import LedgerBroken, TopicProblem
from streams.lanes import Lane, Work
from streams.transport import App

log = structlog.get_logger(__name__)

TICK_S = 0.5
#: Exit code of a worker that ended itself rather than go on half-alive (sysexits EX_SOFTWARE).
EXIT_FATAL = 70


class RoleSensors(Protocol):
    """What a role tells about itself."""

    def lane_halted(self, topic: str, partition: int, reason: str) -> None: ...
    def chunk_missing(self, topic: str, partition: int, gaps: int) -> None: ...
    def following(self, table: str, lag_s: Callable[[], float]) -> None: ...


class Role:
    """Lanes of one app on one topic.

    `make_work(partition)` gives the work of a newly assigned partition; `linger_s`: see `Lane`; `leave` ends the process.
    """

    def __init__(
        self,
        app: App,
        topic: str,
        make_work: Callable[[int], Work],
        sensors: RoleSensors,
        linger_s: float,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self.app = app
        self.topic = topic
        self.lanes: dict[int, Lane] = {}
        self._make_work = make_work
        self._sensors = sensors
        self._linger_s = linger_s
        self._leave = leave
        app.on_partitions_assigned.connect(self._assigned, weak=False)
        app.on_partitions_revoked.connect(self._revoked, weak=False)
        self.agent = app.agent(app.chunks(topic), name=f"{app.conf.id}.{topic}.route")(self._route)
        app.timer(TICK_S)(self._tick)

    async def close(self) -> None:
        """Close every lane, together."""
        lanes = [self.lanes.pop(partition) for partition in list(self.lanes)]
        await asyncio.gather(*(lane.close() for lane in lanes))

    async def _route(self, stream: Any) -> None:
        async for event in stream.events():
            lane = self.lanes.get(event.message.partition)
            if lane is not None:
                lane.offer(event.value)

    async def _tick(self) -> None:
        for lane in self.lanes.values():
            lane.tick()
            if lane.gaps:
                self._sensors.chunk_missing(lane.tp.topic, lane.tp.partition, lane.gaps)
                lane.gaps = 0

    async def _assigned(self, _app: Any, assigned: set[TP], **_: Any) -> None:
        for tp in assigned:
            if tp.topic == self.topic and tp.partition not in self.lanes:
                work = self._make_work(tp.partition)
                self.lanes[tp.partition] = Lane(tp, work, self.app.consumer, self._fatal, linger_s=self._linger_s)

    async def _revoked(self, _app: Any, revoked: set[TP], **_: Any) -> None:
        lanes = [
            self.lanes.pop(tp.partition) for tp in revoked if tp.topic == self.topic and tp.partition in self.lanes
        ]
        await asyncio.gather(*(lane.close() for lane in lanes))

    def _fatal(self, tp: TP, error: BaseException) -> None:
        """A topic or a ledger that is wrong halts its lane and alarms; anything else ends the process."""
        if isinstance(error, TopicProblem | LedgerBroken):
            log.error("lane_halted", topic=tp.topic, partition=tp.partition, reason=error.reason, detail=error.detail)
            self._sensors.lane_halted(tp.topic, tp.partition, error.reason)
            return
        log.critical("worker_ended", topic=tp.topic, partition=tp.partition, error=repr(error), exc_info=error)
        sys.stderr.flush()
        self._leave(EXIT_FATAL)


class JointRole(Mapping[str, Lane]):
    """Roles of one app, a topic each: one consumer group that reads several topics.

    As a mapping it is the lanes there are now, by `topic-partition`.
    """

    def __init__(self, *roles: Role) -> None:
        self.app = roles[0].app
        self._roles = roles

    @property
    def lanes(self) -> Mapping[str, Lane]:
        """The lanes of all topics."""
        return self

    async def close(self) -> None:
        """Close every lane, together."""
        await asyncio.gather(*(role.close() for role in self._roles))

    def __getitem__(self, place: str) -> Lane:
        return self._by_place()[place]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_place())

    def __len__(self) -> int:
        return len(self._by_place())

    def _by_place(self) -> dict[str, Lane]:
        return {f"{role.topic}-{number}": lane for role in self._roles for number, lane in role.lanes.items()}


AnyRole = Role | JointRole
