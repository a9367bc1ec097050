"""Where a group and a partition stand, asked outside of any group membership."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import UnknownTopicOrPartitionError

from streams.runtime.plain_consumer import reading


class PartitionOffsets(NamedTuple):
    """Offsets of one partition: first and one past the last record, and the group's committed one."""

    begin: int
    end: int
    committed: int | None
    partitions: int


async def standing(kafka: Mapping[str, Any], group: str, tp: TopicPartition) -> PartitionOffsets:
    """Ask now. Call it after the partition's previous owner is fenced: only then is it final.

    Raises aiokafka's errors, `UnknownTopicOrPartitionError` where the broker does not know the topic, or not yet.
    """
    async with asking(kafka, group) as consumer:
        return await standing_by(consumer, tp)


def asking(kafka: Mapping[str, Any], group: str, **options: Any) -> AbstractAsyncContextManager[AIOKafkaConsumer]:
    """A consumer that knows the group and never joins it: nothing is subscribed, partitions are assigned by hand."""
    return reading(**kafka, group_id=group, isolation_level="read_committed", enable_auto_commit=False, **options)


async def standing_by(consumer: AIOKafkaConsumer, tp: TopicPartition) -> PartitionOffsets:
    """`standing`, by a consumer of the group that fetches nothing yet: a fetch keeps the connection from questions."""
    begins, ends, committed = await asyncio.gather(
        consumer.beginning_offsets([tp]), consumer.end_offsets([tp]), consumer.committed(tp)
    )
    partitions = len(consumer.partitions_for_topic(tp.topic) or ())
    if not partitions:
        raise UnknownTopicOrPartitionError(tp.topic)
    return PartitionOffsets(begins[tp], ends[tp], committed, partitions)
