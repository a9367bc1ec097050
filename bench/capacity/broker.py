"""A broker with its data on the disk, whose topics can be weighed."""

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Consumer, Producer, TopicPartition

from connectors.kafka.client_config import producer_config
from tests.support.kafka import MavenKafka

#: Kafka writes what it holds to its files, and then cleans compacted topics every few seconds.
_SETTINGS = {"log.cleaner.backoff.ms": "2000", "log.cleaner.dedupe.buffer.size": str(256 << 20)}
_ANSWER_S = 120
#: Bytes of a record and of a header beside their texts: lengths, and differences of offset and time.
_OF_A_RECORD, _OF_A_HEADER = 8, 4
_ROOT = Path(__file__).parents[2]
#: Number of records that wait for their answer at most.
_ENQUEUED = 50_000


class WeighedKafka:
    """A broker of this run alone; `stop()` removes its data."""

    def __init__(self) -> None:
        self._kafka = MavenKafka(_SETTINGS, options=())
        self.bootstrap = self._kafka.bootstrap

    def bytes_of(self, topic: str) -> int:
        """Size of the topic's log segments, bytes, without indexes."""
        segments = self._kafka.folder.glob(f"data/{topic}-[0-9]*/*.log")
        return sum(_size(segment) for segment in segments)

    def stop(self) -> None:
        """End the broker and remove its data."""
        self._kafka.stop()


def _size(segment: Path) -> int:
    try:
        return segment.stat().st_size
    except FileNotFoundError:  # replaced by a cleaned one
        return 0


def fill(bootstrap: str, records: Iterable[tuple[str, int, bytes, bytes]], **other: str | int) -> None:
    """Write (topic, partition, key, value); partition -1: by the key. Returns when all are durable.

    Raises:
        RuntimeError: Kafka did not take them in time.
    """
    settings = producer_config(bootstrap, answer_within_s=_ANSWER_S)
    producer = Producer({**settings, "queue.buffering.max.messages": 2 * _ENQUEUED, **other})
    for number, (topic, partition, key, value) in enumerate(records):
        producer.produce(topic, value, key, partition)
        if number % _ENQUEUED == 0:
            producer.flush(_ANSWER_S)
    if producer.flush(_ANSWER_S):
        raise RuntimeError("Kafka did not take all records in time")


class Committed(NamedTuple):
    """Records of committed transactions, and their bytes: keys, values and headers, which the workers do not compress."""

    records: int
    size: int


def committed(bootstrap: str, topic: str) -> Committed:
    """What the topic has, up to its current end."""
    settings = {"group.id": "count", "enable.auto.commit": False, "enable.partition.eof": True}
    reader = Consumer({"bootstrap.servers": bootstrap, "auto.offset.reset": "earliest", **settings})
    partitions = list(reader.list_topics(topic, timeout=_ANSWER_S).topics[topic].partitions)
    reader.assign([TopicPartition(topic, number, 0) for number in partitions])
    records = size = ended = 0
    while ended < len(partitions):
        for message in reader.consume(5000, 0.2):
            if message.error():
                ended += 1
                continue
            headers = sum(len(name) + len(value or b"") + _OF_A_HEADER for name, value in message.headers() or ())
            records, size = (
                records + 1,
                size + len(message.key() or b"") + len(message.value() or b"") + headers + _OF_A_RECORD,
            )
    reader.close()
    return Committed(records, size)


def until(condition: Callable[[], bool], limit_s: float, what: str) -> float:
    """Seconds until the condition holds. Raises: TimeoutError."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > limit_s:
            raise TimeoutError(f"{what}: not within {limit_s:.0f} s")
        time.sleep(0.05)
    return time.monotonic() - begun


def environment(bootstrap: str, prefix: str, partitions: int, **other: str) -> dict[str, str]:
    """The environment of a process of the product."""
    return {
        "PATH": os.environ["PATH"],
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "KAFKA_PARTITIONS": str(partitions),
        "TOPIC_PREFIX": prefix,
        "PYTHONWARNINGS": "ignore",
        **other,
    }


def started(stack: ExitStack, command: Sequence[str], environ: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A process that ends with the stack, its output in a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environ, cwd=_ROOT, stdout=output, stderr=output)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process
