"""A consumer for the length of a block: started at the entry, stopped at the exit, in any state of the broker.

aiokafka's own `stop()` awaits the fetches that it has just cancelled without a guard (0.14.0, `Fetcher.close`). While a
broker is away there always is such a fetch, and its CancelledError escapes. It would end the task that stops the
consumer as if that task had been cancelled, without an error, and would leave the connections open.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer


@asynccontextmanager
async def reading(*topics: str, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """Open an `AIOKafkaConsumer` with these topics and options as a context manager. Raises aiokafka's errors."""
    consumer = AIOKafkaConsumer(*topics, **options)
    try:
        await consumer.start()
        yield consumer
    finally:
        await stop(consumer)


async def stop(consumer: AIOKafkaConsumer) -> None:
    """Call aiokafka's `stop()`, and suppress the CancelledError that escapes from it."""
    stopping = asyncio.ensure_future(consumer.stop())
    await asyncio.wait({stopping})
    if stopping.cancelled():
        await consumer._client.close()  # noqa: SLF001  # `stop()` ended before it did this
    else:
        stopping.result()
