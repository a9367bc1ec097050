"""Reads the offsets of a group and a partition without joining the group."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import UnknownTopicOrPartitionError

from schemas.errors import TopicProblem
from streams.runtime.plain_consumer import reading


class PartitionOffsets(NamedTuple):
    """Offsets of one partition: the first record, one past the last record, and the group's committed offset; also the
    number of partitions of the topic.
    """

    begin: int
    end: int
    committed: int | None
    partitions: int

    def check(self, tp: TopicPartition, offset: int) -> None:
        """Check that `offset` can be read. Raises: TopicProblem: `offset_out_of_range`: the log does not have, and will
        not get, a record there.
        """
        if not self.begin <= offset <= self.end:
            place = f"{tp.topic}-{tp.partition}"
            raise TopicProblem("offset_out_of_range", f"{place}: {offset} is not in [{self.begin}, {self.end}]")


async def standing(kafka: Mapping[str, Any], group: str, tp: TopicPartition) -> PartitionOffsets:
    """Read the offsets. Call it after the previous owner of the partition is fenced: only then are they final.

    Raises aiokafka's errors, `UnknownTopicOrPartitionError` if the broker does not know the topic (yet).
    """
    async with asking(kafka, group) as consumer:
        return await standing_by(consumer, tp)


def asking(kafka: Mapping[str, Any], group: str, **options: Any) -> AbstractAsyncContextManager[AIOKafkaConsumer]:
    """Create a consumer that reads the group's offsets without joining the group. Partitions are assigned manually."""
    return reading(**kafka, group_id=group, isolation_level="read_committed", enable_auto_commit=False, **options)


async def standing_by(consumer: AIOKafkaConsumer, tp: TopicPartition) -> PartitionOffsets:
    """Like `standing`, with a given consumer. It must not fetch yet, because a fetch would block its connection for
    requests.
    """
    begins, ends, committed = await asyncio.gather(
        consumer.beginning_offsets([tp]), consumer.end_offsets([tp]), consumer.committed(tp)
    )
    partitions = len(consumer.partitions_for_topic(tp.topic) or ())
    if not partitions:
        raise UnknownTopicOrPartitionError(tp.topic)
    return PartitionOffsets(begins[tp], ends[tp], committed, partitions)
