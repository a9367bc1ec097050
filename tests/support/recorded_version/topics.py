"""Writes the topics of a broker to a file, and the file to another broker. The bytes are not interpreted.

A line of the file is a record: topic without prefix, partition, offset, time in milliseconds, key, value and headers in
base64. Another broker gives the raw topic another id of the same length, so every copy of the id is replaced.
"""

import base64
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.topics import CATALOGUE
from tests.support.eventually import eventually

_LIMIT_S = 30.0
_ROLES = ("meter", "sink", "retry", "project")
#: Offsets of each role's group, by topic without prefix and partition.
Offsets = dict[str, dict[str, dict[str, int]]]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A record; `topic` has no prefix."""

    topic: str
    partition: int
    offset: int
    at_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def exported(bootstrap: str, prefix: str) -> Iterator[Recorded]:
    """Yield every committed record of the catalogue's topics."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "recording",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    with closing(consumer):
        for topic in CATALOGUE:
            known = consumer.list_topics(prefix + topic.name, timeout=_LIMIT_S).topics[prefix + topic.name]
            for number in sorted(known.partitions):
                consumer.assign([TopicPartition(prefix + topic.name, number, 0)])
                yield from _partition(consumer, topic.name)


def _partition(consumer: Consumer, topic: str) -> Iterator[Recorded]:
    while True:
        message = consumer.poll(_LIMIT_S)
        if message is None:
            raise TimeoutError(f"{topic} gave nothing for {_LIMIT_S:.0f} s")
        error = message.error()
        if error is None:
            headers = tuple((name, value) for name, value in message.headers() or ())
            at_ms = message.timestamp()[1]
            yield Recorded(topic, message.partition(), message.offset(), at_ms, message.key(), message.value(), headers)
        elif error.code() == KafkaError._PARTITION_EOF:
            return
        else:
            raise KafkaException(error)


def group_offsets(bootstrap: str, prefix: str, group_prefix: str) -> Offsets:
    """Return the committed offsets of each role's group."""
    admin, found = AdminClient({"bootstrap.servers": bootstrap}), Offsets()
    for role in _ROLES:
        asked = ConsumerGroupTopicPartitions(group_prefix + role)
        (future,) = admin.list_consumer_group_offsets([asked]).values()
        for place in future.result(_LIMIT_S).topic_partitions:
            topics = found.setdefault(role, {})
            topics.setdefault(place.topic.removeprefix(prefix), {})[str(place.partition)] = place.offset
    return found


def written(path: Path, records: Iterable[Recorded]) -> int:
    """Write the file; return the number of records."""
    count = 0
    with gzip.GzipFile(path, "wb", mtime=0) as out:
        for record in records:
            count += 1
            line = asdict(record) | {
                "key": _text(record.key),
                "value": _text(record.value),
                "headers": [[name, _text(value)] for name, value in record.headers],
            }
            out.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    return count


def read(path: Path) -> Iterator[Recorded]:
    """Yield the records of the file, in its order."""
    with gzip.open(path) as lines:
        for line in lines:
            fields = json.loads(line)
            headers = tuple((name, _bytes(value)) for name, value in fields["headers"])
            yield Recorded(
                **fields | {"key": _bytes(fields["key"]), "value": _bytes(fields["value"]), "headers": headers}
            )


def restored(
    bootstrap: str, prefix: str, records: Iterable[Recorded], replaced: Mapping[str, str], offsets: Mapping[str, Any]
) -> dict[str, dict[tuple[str, int], int]]:
    """Write the records to empty topics, each with its partition, order and time. A record whose key is
    replaced goes to the partition of the new key.

    Args:
        replaced: old text and new text of the same length, for keys, values and headers.
        offsets: what `group_offsets` returned.

    Returns:
        The offset of each role's group on this broker, by topic (with prefix) and partition.

    Raises:
        ValueError: a record of the raw topic would get another offset than the one that the ledgers name.
    """
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "partitioner": "murmur2_random"})
    swaps = [(old.encode(), new.encode()) for old, new in replaced.items()]
    assert all(len(old) == len(new) for old, new in swaps), "MessagePack counts the bytes"
    counts: dict[tuple[str, int], list[int]] = {}

    def swapped(value: bytes | None) -> bytes | None:
        for old, new in swaps:
            value = None if value is None else value.replace(old, new)
        return value

    for record in records:
        their = counts.setdefault((record.topic, record.partition), [])
        if record.topic == "litellm.usage.raw" and record.offset != len(their):
            raise ValueError(f"{record.topic}-{record.partition}: {len(their)} instead of {record.offset}")
        their.append(record.offset)
        key = swapped(record.key)
        place = {"partition": record.partition} if key == record.key else {}
        producer.produce(
            prefix + record.topic,
            swapped(record.value),
            key,
            **place,
            timestamp=record.at_ms,
            headers=[(name, swapped(value)) for name, value in record.headers],
        )
        producer.poll(0)
    left = producer.flush(_LIMIT_S)
    assert not left, f"{left} records were not taken"
    return {
        role: {
            (prefix + topic, int(number)): sum(1 for its in counts.get((topic, int(number)), ()) if its < offset)
            for topic, partitions in topics.items()
            for number, offset in partitions.items()
        }
        for role, topics in offsets.items()
    }


def commit_offsets(bootstrap: str, group: str, at: Mapping[tuple[str, int], int]) -> None:
    """Commit offsets for a group without members."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
    with closing(consumer):
        places = [TopicPartition(topic, partition, offset) for (topic, partition), offset in at.items()]
        eventually(partial(_committed, consumer, places), every_s=0.1)


def _committed(consumer: Consumer, places: list[TopicPartition]) -> bool:
    """Return whether the broker took the offsets; False = it has not loaded the group yet, or just lost it."""
    try:
        consumer.commit(offsets=places, asynchronous=False)
    except KafkaException as error:
        if error.args[0].code() in (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS):
            return False
        raise
    return True


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
