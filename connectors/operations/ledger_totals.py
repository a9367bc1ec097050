"""Reads the totals of all ledgers, and the number of unread records in each topic."""

import time
from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connectors.config.deployment import Deployment
from connectors.config.kafka_connection import KafkaConnection
from connectors.kafka.client_config import librdkafka_config
from connectors.kafka.topic_scan import OffsetRange, offset_range_of, scan, translated_errors
from schemas.decoding import decoder
from schemas.ledger import POSITION_KEY, Counters, Position, Sum
from schemas.money import add

_decode = decoder(Position, packed=True)
_LIMIT_S = 20.0
#: Error codes while a coordinator is being elected or reads its log. librdkafka does not retry them.
_COORDINATOR_COMING = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}
_ASK_AGAIN_S = 0.2
#: How many of the last records are read to find the position. Each transaction ends with the position, so it is near
#: the end. If the last `_NEAR` records do not have it, `_FAR` times as many are read.
_NEAR, _FAR = 500, 100


class LedgerTotals(NamedTuple):
    """The sums over all ledgers at their last commits.

    Fields:
        decisions: calls and dollars by the meter's decision.
        held: number of held windows, by partition.
    """

    counters: Counters
    decisions: dict[str, Sum]
    held: dict[int, int]


def counted(deployment: Deployment) -> LedgerTotals:
    """Add up the counters in the ledgers' positions.

    Raises:
        TopicProblem, Unavailable: see `offset_range_of`.
    """
    positions = positions_of(deployment)
    held = {number: position.held for number, position in positions.items()}
    return LedgerTotals(_together(positions), _by_decision(positions), held)


def positions_of(deployment: Deployment) -> dict[int, Position]:
    """Read the last committed position of each ledger, by partition.

    Raises:
        TopicProblem, Unavailable: see `offset_range_of`.
    """
    kafka, topic = deployment.kafka, deployment.topics.changelog
    whole = offset_range_of(kafka, topic)
    positions: dict[int, Position] = {}
    reach = _NEAR
    while left := {number: ends for number, ends in whole.ranges.items() if number not in positions and ends[1]}:
        near = {number: (max(start, end - reach), end) for number, (start, end) in left.items()}
        for message in scan(kafka, OffsetRange(topic, near)):
            if message.key() == POSITION_KEY:
                positions.pop(message.partition() or 0, None)  # a rebuild deletes the position first
                if (value := message.value()) is not None:
                    positions[message.partition() or 0] = _decode(value)
        if all(near[number][0] <= start for number, (start, _) in left.items()):
            break
        reach *= _FAR
    return positions


def _together(positions: Mapping[int, Position]) -> Counters:
    total = Counters()
    for position in positions.values():
        for name in Counters.__struct_fields__:
            one, more = getattr(total, name), getattr(position.counters, name)
            setattr(total, name, Sum(one.calls + more.calls, add(one.cost, more.cost)))
    return total


def _by_decision(positions: Mapping[int, Position]) -> dict[str, Sum]:
    total: dict[str, Sum] = {}
    for position in positions.values():
        for decision, more in position.decisions.items():
            one = total.get(decision, Sum())
            total[decision] = Sum(one.calls + more.calls, add(one.cost, more.cost))
    return total


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
    whole = offset_range_of(kafka, topic)
    config = {**librdkafka_config(kafka), "group.id": group, "enable.auto.commit": False}
    with translated_errors(topic), closing(Consumer(config)) as member:
        committed = committed_of(member, [TopicPartition(topic, number) for number in whole.ranges])
    now_ms, oldest_ms, records = time.time_ns() // 1_000_000, None, 0
    for position in committed:
        start, end = whole.ranges[position.partition]
        at = max(start, position.offset)
        # The first offsets may be transaction markers. A partition with nothing but markers has no unread record.
        first = next(scan(kafka, OffsetRange(topic, {position.partition: (at, end)})), None) if at < end else None
        if first is not None:
            records += end - at
            made_ms = first.timestamp()[1]
            oldest_ms = made_ms if oldest_ms is None else min(oldest_ms, made_ms)
    return Unread(records, 0.0 if oldest_ms is None else max(0.0, (now_ms - oldest_ms) / 1000))


def committed_of(member: Consumer, places: list[TopicPartition], limit_s: float = _LIMIT_S) -> list[TopicPartition]:
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
