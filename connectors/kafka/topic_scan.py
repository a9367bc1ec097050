"""Reads a stretch of a topic once, from the command line: bounded at the start, in no group, nothing committed."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from connectors.config.kafka_connection import KafkaConnection
from connectors.kafka.client_config import librdkafka_config
from schemas.errors import TopicProblem, Unavailable

_LIMIT_S = 20.0
#: Until a batch is full, or this is over: a short topic is read in no time.
_BATCH, _POLL_S = 2000, 0.05
#: A broker that is silent for so long while records are left is away.
_SILENCE_S = 30.0
_AGAIN_S = 0.1
#: A leader is being elected, or a broker has not heard yet that it leads: said for moments, also of new topics.
_PASSING = {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """Offsets `[start, end)` of each partition of a topic; control records of transactions may lie among them."""

    topic: str
    ranges: Mapping[int, tuple[int, int]]

    @property
    def offsets(self) -> int:
        """How many offsets there are to pass."""
        return sum(max(0, end - start) for start, end in self.ranges.values())


def stretch_of(
    kafka: KafkaConnection, topic: str, since_ms: int | None = None, until_ms: int | None = None
) -> OffsetRange:
    """What the topic holds now of record times `[since, until)`, milliseconds since 1970 UTC; None = open.

    Raises:
        TopicProblem: `topic_missing`.
        Unavailable: the broker does not answer.
    """
    with closing(reader(kafka)) as consumer, told(topic):
        partitions = consumer.list_topics(topic, timeout=_LIMIT_S).topics[topic]
        if partitions.error is not None:
            raise TopicProblem("topic_missing", f"{topic} does not exist")
        ranges = {
            number: asked(partial(consumer.get_watermark_offsets, TopicPartition(topic, number), timeout=_LIMIT_S))
            for number in partitions.partitions
        }
        if since_ms is not None:
            for number, offset in _at(consumer, topic, ranges, since_ms).items():
                low, high = ranges[number]
                ranges[number] = (max(low, offset), high)
        if until_ms is not None:
            for number, offset in _at(consumer, topic, ranges, until_ms).items():
                low, high = ranges[number]
                ranges[number] = (low, min(high, offset))
    return OffsetRange(topic, ranges)


def scan(
    kafka: KafkaConnection, stretch: OffsetRange, passed: Callable[[int], None] = lambda _offsets: None
) -> Iterator[Message]:
    """Every committed record of the stretch, in order within a partition; `passed` is told how many offsets more.

    Raises:
        Unavailable: the broker went away meanwhile.
    """
    left = {number: end for number, (start, end) in stretch.ranges.items() if start < end}
    at = {number: start for number, (start, _) in stretch.ranges.items()}
    silent_s = 0.0
    with closing(reader(kafka)) as consumer, told(stretch.topic):
        consumer.assign([TopicPartition(stretch.topic, number, at[number]) for number in left])
        while left:
            messages = consumer.consume(_BATCH, _POLL_S)
            silent_s = 0.0 if messages else silent_s + _POLL_S
            if silent_s > _SILENCE_S:
                raise Unavailable("kafka_unavailable", f"{stretch.topic} is not read to its end")
            for message in messages:
                number, offset, ended = message.partition() or 0, message.offset() or 0, _ended(message)
                if number not in left:
                    continue
                after = min(left[number], offset if ended else offset + 1)
                passed(max(0, after - at[number]))
                at[number] = after
                if not ended and offset < left[number]:
                    yield message
                if ended or after >= left[number]:
                    passed(left.pop(number) - after)


def header_of(message: Message, name: str) -> str:
    """A header as text; `""` where the record has none of that name."""
    for key, value in message.headers() or ():
        if key == name:
            return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return ""


def reader(kafka: KafkaConnection) -> Consumer:
    """A consumer in no group, which commits nothing and tells of a partition's end."""
    return Consumer(
        {
            **librdkafka_config(kafka),
            "group.id": "meterbridge-operations",  # required by the client; nothing joins it
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 50,  # a partition's end is told when the broker has waited in vain for more
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )


def _at(consumer: Consumer, topic: str, ranges: Mapping[int, tuple[int, int]], at_ms: int) -> dict[int, int]:
    """Per partition the first offset of that record time or later; the end where there is none."""

    def looked_up() -> list[TopicPartition]:
        partitions = [TopicPartition(topic, number, at_ms) for number in ranges]
        found: list[TopicPartition] = consumer.offsets_for_times(partitions, timeout=_LIMIT_S)
        for partition in found:
            if partition.error is not None:  # its offset says nothing then
                raise KafkaException(partition.error)
        return found

    return {
        found.partition: found.offset if found.offset >= 0 else ranges[found.partition][1] for found in asked(looked_up)
    }


def asked(question: Callable[[], _T]) -> _T:
    """The answer; a broker that cannot tell at the moment is asked again, for `_LIMIT_S` seconds at most."""
    until = time.monotonic() + _LIMIT_S
    while True:
        try:
            return question()
        except KafkaException as error:
            if error.args[0].code() not in _PASSING or time.monotonic() > until:
                raise
        time.sleep(_AGAIN_S)


def _ended(message: Message) -> bool:
    error = message.error()
    if error is None:
        return False
    if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # librdkafka's own errors are spelt so
        return True
    raise KafkaException(error)


class told:  # noqa: N801  # a block, as contextlib's are
    """librdkafka's errors as decisions."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: object) -> None:
        if isinstance(error, KafkaException):
            raise Unavailable("kafka_unavailable", f"{self._topic}: {error.args[0].str()}") from error
