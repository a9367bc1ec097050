"""A bare aiokafka consumer: reads a topic to its end and counts.

`calls`: decodes each value as JSON, measured from the first record. `changelog`: leaves values undecoded, measured from
the client's start, because a ledger that opens must connect as well.
"""

import sys

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.stopwatch import Stopwatch

_FETCH_BYTES = 8 << 20
_RECORDS = 20_000

_decode = msgspec.json.Decoder().decode


async def main(what: str, bootstrap: str, topic: str, partitions: int) -> None:
    """Read all partitions of `topic` to their current end."""
    watch, count = Stopwatch(), 0
    if what == "changelog":
        watch.start()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_FETCH_BYTES,
        fetch_max_bytes=4 * _FETCH_BYTES,
    )
    await consumer.start()
    waiting = [TopicPartition(topic, number) for number in range(partitions)]
    consumer.assign(waiting)
    ends = await consumer.end_offsets(waiting)
    await consumer.seek_to_beginning()
    while waiting:
        for records in (await consumer.getmany(timeout_ms=200, max_records=_RECORDS)).values():
            watch.start()
            if what == "calls":
                for record in records:
                    _decode(record.value)
            count += len(records)
        waiting = [tp for tp in waiting if await consumer.position(tp) < ends[tp]]
    watch.stop(count)
    await consumer.stop()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:4], int(sys.argv[4])))
