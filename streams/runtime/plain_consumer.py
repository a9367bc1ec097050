"""A consumer for as long as a block runs: started on entry, stopped on exit, whatever the broker does meanwhile.

aiokafka's own `stop()` awaits, unguarded, the fetches that it has just cancelled (0.14.0, `Fetcher.close`). While
a broker is away there is always one, and its CancelledError comes out: it would end the task that stops the
consumer as if somebody had cancelled it, without an error anywhere, and leave the connections open.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer


@asynccontextmanager
async def reading(*topics: str, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """An `AIOKafkaConsumer` of these topics and options. Raises aiokafka's errors."""
    consumer = AIOKafkaConsumer(*topics, **options)
    try:
        await consumer.start()
        yield consumer
    finally:
        await stop(consumer)


async def stop(consumer: AIOKafkaConsumer) -> None:
    """aiokafka's `stop()` without what it lets out."""
    stopping = asyncio.ensure_future(consumer.stop())
    await asyncio.wait({stopping})
    if stopping.cancelled():
        await consumer._client.close()  # noqa: SLF001  # what `stop()` did not come to
    else:
        stopping.result()
