"""Where a group and a partition stand, asked outside of any group membership."""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import UnknownTopicOrPartitionError

from streams.reading import reading

_LOG_OPTIONS: dict[str, Any] = {
    "group_id": None,
    "isolation_level": "read_committed",
    "enable_auto_commit": False,
    "fetch_max_wait_ms": 5,  # a fetch under way keeps the connection from other questions
}


class Standing(NamedTuple):
    """Offsets of one partition: first and one past the last record, and the group's committed one."""

    begin: int
    end: int
    committed: int | None
    partitions: int


async def standing(kafka: Mapping[str, Any], group: str, tp: TopicPartition) -> Standing:
    """Ask now. Call it after the partition's previous owner is fenced: only then is it final.

    Raises aiokafka's errors, `UnknownTopicOrPartitionError` where the broker does not know the topic, or not yet.
    """
    async with (
        # Subscribed, group-less: so the first answer about the cluster names the partitions.
        reading(tp.topic, **kafka, **_LOG_OPTIONS) as log,
        reading(**kafka, group_id=group, enable_auto_commit=False) as member,
    ):
        partitions = len(log.partitions_for_topic(tp.topic) or ())
        if not partitions:
            raise UnknownTopicOrPartitionError(tp.topic)
        member.assign([tp])
        begins, ends, committed = await asyncio.gather(
            log.beginning_offsets([tp]), log.end_offsets([tp]), member.committed(tp)
        )
        return Standing(begins[tp], ends[tp], committed, partitions)
