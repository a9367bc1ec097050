"""Writes the records of `litellm.usage.enriched` to files of JSON lines, for DuckDB, Spark or any tool that reads files.

    python enriched_to_files.py localhost:9092 litellm.usage.enriched usage/

It needs `pip install confluent-kafka`, writes what has come since the last run, and ends: call it from a timer, one at a time. A
file appears when it is complete, and its name has the partition, the first and the last offset. The next run goes on behind the
newest file of each partition: keep that one when you delete files.
"""

import os
import sys
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

RECORDS_IN_A_FILE = 100_000


def written(folder: Path, messages: list[Message]) -> None:
    """A file of one partition's records, named by their offsets; durable when this returns."""
    first, last = messages[0], messages[-1]
    path = folder / f"{first.partition():04}-{first.offset():020}-{last.offset():020}.jsonl"
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.writelines(message.value() + b"\n" for message in messages)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def position(folder: Path, partition: int) -> int | None:
    """The offset behind the newest file of a partition; None = there is no file."""
    last = max((path.stem for path in folder.glob(f"{partition:04}-*.jsonl")), default=None)
    return None if last is None else int(last.rpartition("-")[2]) + 1


def main(servers: str, topic: str, folder: Path) -> None:
    """Read each partition to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "enriched-to-files",
            "isolation.level": "read_committed",  # without it, usage of aborted transactions is written
            "enable.auto.commit": False,
            "auto.offset.reset": "error",  # records that were deleted unread are no reason to go on in silence
            "enable.partition.eof": True,
        }
    )
    for number in consumer.list_topics(topic, timeout=30).topics[topic].partitions:
        place = TopicPartition(topic, number)
        known = position(folder, number)
        place.offset = consumer.get_watermark_offsets(place, timeout=30)[0] if known is None else known
        consumer.assign([place])
        at_end = False
        while not at_end:
            messages: list[Message] = []
            while len(messages) < RECORDS_IN_A_FILE and not at_end:
                for message in consumer.consume(1000, timeout=1):
                    error = message.error()
                    if error is None:
                        messages.append(message)
                    elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # it has no public name
                        at_end = True
                    else:
                        raise SystemExit(error.str())
            if messages:
                written(folder, messages)
    consumer.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
