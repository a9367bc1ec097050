"""Reads the number of unread records in each topic."""

import time
from contextlib import closing
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connectors.config.deployment import Deployment
from connectors.config.kafka_connection import KafkaConnection
from connectors.kafka.admin import LIMIT_S
from connectors.kafka.client_config import librdkafka_config
from connectors.kafka.topic_scan import OffsetRange, offset_range_of, scan, translated_errors

#: Error codes while a coordinator is being elected or reads its log. librdkafka does not retry them.
_COORDINATOR_COMING = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}
_ASK_AGAIN_S = 0.2


class Unread(NamedTuple):
    """The records of a topic that a role has not read yet.

    Fields:
        records: number of offsets after the group's position; transaction markers count, too.
        oldest_s: age of the oldest unread record, seconds; 0 = there is none.
    """

    records: int
    oldest_s: float


def queues_of(deployment: Deployment) -> dict[str, tuple[str, str]]:
    """Return the full names of the raw, the events and the retry topic, with their consumer groups."""
    topics = deployment.topics
    roles = {"raw": (topics.raw, "meter"), "events": (topics.events, "sink"), "retry": (topics.retry, "retry")}
    return {name: (topic, deployment.kafka_id(role)) for name, (topic, role) in roles.items()}


def unread(deployment: Deployment) -> dict[str, Unread]:
    """Read how many records wait in the raw, the events and the retry topic.

    Raises:
        TopicProblem, Unavailable: see `offset_range_of`.
    """
    return {name: _unread(deployment.kafka, *queue) for name, queue in queues_of(deployment).items()}


def oldest_waiting_s(deployment: Deployment) -> dict[str, float]:
    """Return the age of the oldest unread record in the raw, the events and the retry topic, seconds; 0 = there is
    none.

    Raises:
        TopicProblem, Unavailable: see `offset_range_of`.
    """
    return {name: waiting.oldest_s for name, waiting in unread(deployment).items()}


def _unread(kafka: KafkaConnection, topic: str, group: str) -> Unread:
    return records_after(kafka, unread_by(kafka, group, offset_range_of(kafka, topic)))


def unread_by(kafka: KafkaConnection, group: str, whole: OffsetRange) -> OffsetRange:
    """Return the part of `whole` after the committed offsets of a consumer group; all of it if the group has none.

    Raises:
        Unavailable: the broker does not answer.
    """
    ranges = {}
    for position in _positions(kafka, group, whole):
        start, end = whole.ranges[position.partition]
        ranges[position.partition] = (max(start, position.offset), end)
    return OffsetRange(whole.topic, ranges)


def has_read(kafka: KafkaConnection, group: str, whole: OffsetRange) -> bool:
    """Return whether a consumer group has committed an offset of the topic. Raises: Unavailable: the broker does not answer."""
    return any(position.offset >= 0 for position in _positions(kafka, group, whole))


def _positions(kafka: KafkaConnection, group: str, whole: OffsetRange) -> list[TopicPartition]:
    """Return the committed offsets of the group; below 0 = there is none."""
    config = {**librdkafka_config(kafka), "group.id": group, "enable.auto.commit": False}
    with translated_errors(whole.topic), closing(Consumer(config)) as member:
        return committed_of(member, [TopicPartition(whole.topic, number) for number in whole.ranges])


def records_after(kafka: KafkaConnection, stretch: OffsetRange) -> Unread:
    """Return how many records a range has that was not read yet, and how old the oldest one is.

    Raises:
        Unavailable: see `scan`.
    """
    now_ms, oldest_ms, records = time.time_ns() // 1_000_000, None, 0
    for number, (start, end) in stretch.ranges.items():
        # The first offsets may be transaction markers. A partition with nothing but markers has no unread record.
        one = OffsetRange(stretch.topic, {number: (start, end)})
        first = next(scan(kafka, one), None) if start < end else None
        if first is not None:
            records += end - start
            made_ms = first.timestamp()[1]
            oldest_ms = made_ms if oldest_ms is None else min(oldest_ms, made_ms)
    return Unread(records, 0.0 if oldest_ms is None else max(0.0, (now_ms - oldest_ms) / 1000))


def committed_of(member: Consumer, places: list[TopicPartition], limit_s: float = LIMIT_S) -> list[TopicPartition]:
    """Read the committed offsets of the consumer's group. The request is repeated while the coordinator is not
    available.

    Raises:
        KafkaException: Kafka returned another error, or did not answer within `limit_s`.
    """
    deadline = time.monotonic() + limit_s
    while True:
        try:
            positions: list[TopicPartition] = member.committed(places, timeout=limit_s)
            for place in positions:
                if place.error is not None:
                    raise KafkaException(place.error)
        except KafkaException as failed:
            if failed.args[0].code() not in _COORDINATOR_COMING or time.monotonic() > deadline:
                raise
            time.sleep(_ASK_AGAIN_S)
        else:
            return positions
