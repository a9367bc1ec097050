"""Reads a range of a topic once, for commands. It joins no group and commits nothing."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from connectors.config.kafka_connection import KafkaConnection
from connectors.kafka.admin import FIRST_ANSWER_S, LIMIT_S
from connectors.kafka.client_config import librdkafka_config
from connectors.kafka.errors import topic_missing
from schemas.errors import Unavailable

#: A batch ends with this number of records, or after this number of seconds.
_BATCH, _POLL_S = 2000, 0.05
#: If the broker sends none of the remaining records for this time, it counts as unavailable, seconds.
_SILENCE_S = 30.0
_AGAIN_S = 0.1
#: Error codes while a leader is elected, or before a broker or the client knows the leader. They also occur for new
#: topics. The first two: who asks has listed the topic, so the partition exists.
_PASSING = {
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001  # librdkafka's own errors are spelt so
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
}

#: Numbers of this many digits fit into 64 bits.
_MOST_DIGITS = 18

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """Offsets `[start, end)` of each partition of a topic. Some may be control records of transactions."""

    topic: str
    ranges: Mapping[int, tuple[int, int]]

    @property
    def offsets(self) -> int:
        """The number of offsets in the range."""
        return sum(max(0, end - start) for start, end in self.ranges.values())


def offset_range_of(
    kafka: KafkaConnection, topic: str, since_ms: int | None = None, until_ms: int | None = None
) -> OffsetRange:
    """Return the current offsets with record times in `[since_ms, until_ms)`, milliseconds since 1970 UTC; None = no
    limit. It includes offsets behind an unfinished transaction, where there may be committed records.

    Raises:
        TopicProblem: `topic_missing`.
        Unavailable: the broker does not answer.
    """
    with closing(reader(kafka, committed=False)) as consumer, translated_errors(topic):
        partitions = consumer.list_topics(topic, timeout=FIRST_ANSWER_S).topics[topic]
        if partitions.error is not None:
            raise topic_missing(topic)
        ranges = {
            number: asked(partial(consumer.get_watermark_offsets, TopicPartition(topic, number), timeout=LIMIT_S))
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
    """Yield every committed record of the range, in order within a partition. `passed` is called with the number of
    offsets that were passed since its last call.

    An unfinished transaction hides the committed records behind it. Kafka aborts an abandoned one after its timeout, and
    this waits for it: a rebuilt ledger would bill what it does not see.

    Raises:
        Unavailable: the broker stopped answering, or a transaction does not end.
    """
    yield from scan_stretches(kafka, stretch.topic, {number: [one] for number, one in stretch.ranges.items()}, passed)


def scan_stretches(
    kafka: KafkaConnection,
    topic: str,
    stretches: Mapping[int, Iterable[tuple[int, int]]],
    passed: Callable[[int], None] = lambda _offsets: None,
) -> Iterator[Message]:
    """Yield every committed record of some stretches of each partition, as `scan` does, with one consumer. The stretches
    `[start, end)` of a partition are in ascending order and do not overlap; what lies between them is not read.

    Raises: see `scan`.
    """
    left = {number: deque(one for one in some if one[0] < one[1]) for number, some in stretches.items()}
    left = {number: some for number, some in left.items() if some}
    at = {number: some[0][0] for number, some in left.items()}
    silent_s = 0.0
    with closing(reader(kafka)) as consumer, translated_errors(topic):
        consumer.assign([TopicPartition(topic, number, at[number]) for number in left])
        while left:
            messages = consumer.consume(_BATCH, _POLL_S)
            silent_s = 0.0 if messages else silent_s + _POLL_S
            if silent_s > _SILENCE_S:
                raise Unavailable("kafka_unavailable", f"{topic} could not be read to its end")
            further: set[int] = set()
            for message in messages:
                number, offset, is_end = message.partition() or 0, message.offset() or 0, ended(message)
                if number not in left or number in further:
                    continue
                end = left[number][0][1]
                after = min(end, offset if is_end else offset + 1)
                passed(max(0, after - at[number]))
                at[number] = after
                if not is_end and offset < end:
                    yield _with_headers(kafka, message)
                if after >= end:
                    left[number].popleft()
                    if left[number]:
                        further.add(number)
                    else:
                        del left[number]
            for number in further:
                at[number] = left[number][0][0]
                consumer.seek(TopicPartition(topic, number, at[number]))


def _with_headers(kafka: KafkaConnection, message: Message) -> Message:
    """Return a message whose headers can be read. Raises: Unavailable."""
    try:
        message.headers()
    except SystemError:
        from connectors.kafka.odd_headers import read_again

        return read_again(kafka, message)
    return message


def header_of(message: Message, name: str) -> str:
    """Return the value of a header as text; `""` if the record has no such header, or it has no value. Of several headers
    with the same name the last one counts, as for the workers.
    """
    value = dict(message.headers() or ()).get(name)
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def number_in_header(message: Message, name: str) -> int | None:
    """Return the number in a header; None = the record has no such header, or its value is no number of ours."""
    return whole_number(header_of(message, name))


def whole_number(text: str) -> int | None:
    """Return the number that is written in at most 18 digits of ASCII; None = the text is something else.

    `str.isdigit` is also true for `²`, which `int` refuses.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def reader(kafka: KafkaConnection, *, committed: bool = True) -> Consumer:
    """Create a consumer that joins no group, commits nothing, and reports the end of a partition.

    Args:
        committed: whether a partition ends for it at the first unfinished transaction.
    """
    return Consumer(
        {
            **librdkafka_config(kafka),
            "group.id": "meterbridge-operations",  # the client requires a group; no consumer joins it
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 50,  # wait after which the end of a partition is reported
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed" if committed else "read_uncommitted",
        }
    )


def _at(consumer: Consumer, topic: str, ranges: Mapping[int, tuple[int, int]], at_ms: int) -> dict[int, int]:
    """Return the first offset of each partition with that record time or a later one; the end if there is none."""

    def looked_up() -> list[TopicPartition]:
        partitions = [TopicPartition(topic, number, at_ms) for number in ranges]
        offsets: list[TopicPartition] = consumer.offsets_for_times(partitions, timeout=LIMIT_S)
        for partition in offsets:
            if partition.error is not None:  # then its offset means nothing
                raise KafkaException(partition.error)
        return offsets

    return {
        offset.partition: offset.offset if offset.offset >= 0 else ranges[offset.partition][1]
        for offset in asked(looked_up)
    }


def asked(question: Callable[[], _T]) -> _T:
    """Return the result of `question` about a partition of a topic that the broker has listed. It is repeated for at most
    `LIMIT_S` seconds while a leader is being elected.
    """
    until = time.monotonic() + LIMIT_S
    while True:
        try:
            return question()
        except KafkaException as error:
            if error.args[0].code() not in _PASSING or time.monotonic() > until:
                raise
        time.sleep(_AGAIN_S)


def ended(message: Message) -> bool:
    """Return whether a message of `reader` reports the end of its partition. Raises: KafkaException: the message
    reports another error.
    """
    error = message.error()
    if error is None:
        return False
    if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # librdkafka's own errors are spelt so
        return True
    raise KafkaException(error)


class translated_errors:  # noqa: N801  # a block, as contextlib's are
    """A context manager that turns librdkafka's errors into Unavailable."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: object) -> None:
        if isinstance(error, KafkaException):
            raise Unavailable("kafka_unavailable", f"{self._topic}: {error.args[0].str()}") from error
