"""A topic and its consumer in virtual time: the test chooses how long each response takes, and how old its content is."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import LeaderNotAvailableError

from tests.support.virtual_time import virtual_now


class Written(NamedTuple):
    """A record, and the moment at which its writer was told that it is durable, seconds."""

    partition: int
    at: float


class Answer(NamedTuple):
    """How the broker treats a request for the end.

    Fields:
        there, back: seconds that the request takes, and its response.
        fails: whether the broker refuses the request, as after a change of the leader.
    """

    there: float = 0.0
    back: float = 0.0
    fails: bool = False


class VirtualTopic:
    """The broker's side.

    Args:
        records: in the order of their time.
        answers: to the requests for the end, in order; later ones are immediate.
        behind_s: the seconds by which fetches lag behind what is durable, as after a change of the leader.
        seen: called before and after each request.
    """

    def __init__(
        self,
        partitions: int = 1,
        records: tuple[Written, ...] = (),
        answers: Iterable[Answer] = (),
        behind_s: float = 0.0,
        seen: Callable[[], None] = lambda: None,
    ) -> None:
        self.partitions = partitions
        self.records = {number: [one for one in records if one.partition == number] for number in range(partitions)}
        self.asked = self.fetched = 0
        self.options: dict[str, Any] = {}
        self._answers = iter(answers)
        self._behind_s = behind_s
        self._seen = seen
        self._positions: dict[TopicPartition, int] = {}

    @asynccontextmanager
    async def reading(self, *_topics: str, **options: Any) -> AsyncIterator["VirtualTopic"]:
        """Replaces `streams.runtime.plain_consumer.reading`."""
        self.options = options
        yield self

    def durable(self, partition: int, at: float) -> int:
        """Return the number of records that are durable at a moment."""
        return sum(one.at <= at for one in self.records[partition])

    def partitions_for_topic(self, _topic: str) -> set[int]:
        return set(range(self.partitions))

    def unsubscribe(self) -> None:
        """Do nothing: nothing is subscribed."""

    def assign(self, tps: list[TopicPartition]) -> None:
        self._positions = dict.fromkeys(tps, 0)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self._positions[tp] = offset

    async def position(self, tp: TopicPartition) -> int:
        return self._positions[tp]

    async def end_offsets(self, tps: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        self._seen()
        self.asked += 1
        answer = next(self._answers, Answer())
        await asyncio.sleep(answer.there)
        ends = {tp: self.durable(tp.partition, virtual_now()) for tp in tps}
        await asyncio.sleep(answer.back)
        self._seen()
        if answer.fails:
            raise LeaderNotAvailableError
        return ends

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        """Return the present records, or the records that arrive within `timeout_ms`. A broker is asked again each
        `fetch_max_wait_ms`.
        """
        self._seen()
        until, held_s = virtual_now() + timeout_ms / 1000, self.options["fetch_max_wait_ms"] / 1000
        while True:
            come = self._come_at()
            if come <= virtual_now():
                return self._take(max_records)
            if virtual_now() >= until:
                return {}
            self.fetched += 1
            await asyncio.sleep(min(come, virtual_now() + held_s, until) - virtual_now())
            self._seen()

    def _come_at(self) -> float:
        unread = [self.records[tp.partition][position:] for tp, position in self._positions.items()]
        return min((rest[0].at + self._behind_s for rest in unread if rest), default=float("inf"))

    def _take(self, most: int) -> dict[TopicPartition, list[Any]]:
        taken: dict[TopicPartition, list[Any]] = {}
        for tp, position in self._positions.items():
            end = min(self.durable(tp.partition, virtual_now() - self._behind_s), position + most)
            if end > position:
                taken[tp] = [SimpleNamespace(offset=offset) for offset in range(position, end)]
                self._positions[tp] = end
        return taken
