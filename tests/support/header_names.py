"""Writes records whose headers have names that are not UTF-8. Kafka's protocol says that names are UTF-8, and its broker does not
check it; clients that take names as bytes, such as those in Go and C, write any.
"""

import struct
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c

#: A name of four bytes that is not UTF-8, and what is written in its place first.
NAME = b"\xff\xfe\x80Q"
_PLACE = "@@@@"
#: Places in a batch of records: its checksum, and what the checksum is of.
_CRC, _CHECKED = 17, 21


async def put_with_odd_header(
    bootstrap: str, topic: str, records: Sequence[tuple[bytes, bytes]], partition: int = 0, at_ms: int = 0
) -> None:
    """Write a batch of (key, value) whose records all have a header with such a name."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=False) as producer:
        batch = producer.create_batch()
        for key, value in records:
            batch.append(timestamp=at_ms or None, key=key, value=value, headers=[(_PLACE, b"of a sender"), ("b", None)])
        batch.close()
        packed = bytearray(batch._build().replace(_PLACE.encode(), NAME))
        packed[_CRC:_CHECKED] = struct.pack(">I", calc_crc32c(bytes(packed[_CHECKED:])))
        batch._buffer = packed
        await (await producer.send_batch(batch, topic, partition=partition))
