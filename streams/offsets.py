"""Where a group and a partition stand, asked outside of any group membership."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from aiokafka import TopicPartition

from streams.reading import reading


class Standing(NamedTuple):
    """Offsets of one partition: first and one past the last record, and the group's committed one."""

    begin: int
    end: int
    committed: int | None
    partitions: int


async def standing(kafka: Mapping[str, Any], group: str, tp: TopicPartition) -> Standing:
    """Ask now. Call it after the partition's previous owner is fenced: only then is it final."""
    async with reading(
        tp.topic, **kafka, group_id=None, isolation_level="read_committed", enable_auto_commit=False
    ) as consumer:
        begin = (await consumer.beginning_offsets([tp]))[tp]
        end = (await consumer.end_offsets([tp]))[tp]
        partitions = len(consumer.partitions_for_topic(tp.topic) or ())
    async with reading(**kafka, group_id=group, enable_auto_commit=False) as asker:
        asker.assign([tp])
        return Standing(begin, end, await asker.committed(tp), partitions)
