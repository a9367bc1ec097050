"""A plain Faust agent doing the plain version of the meter's job, with Faust's defaults."""

import asyncio
import os
import sys
from typing import Any

import faust

from bench.stopwatch import Stopwatch


def main(bootstrap: str, topic: str, group: str, partitions: int, records: int) -> None:
    """Process `records` records and wait until their changelog is written."""
    watch, left = Stopwatch(), records
    app = faust.App(group, broker=f"kafka://{bootstrap}", store="memory://", web_enabled=False)
    done = asyncio.Event()
    cost = app.Table("cost", default=float, partitions=partitions)

    @app.agent(app.topic(topic, key_type=str, key_serializer="raw", value_serializer="json"))
    async def fold(calls: Any) -> None:
        nonlocal left
        async for customer, record in calls.items():
            watch.start()
            call = record["call"]
            cost[f"{customer}|{call['model']}|{call['endTime'][:16]}"] += float(call["spend"])
            left -= 1
            if not left:
                done.set()

    async def run() -> None:
        app.finalize()
        await app.maybe_start()
        await done.wait()
        await app.producer.flush()
        watch.stop(records)

    asyncio.run(_to_the_end(run()))


async def _to_the_end(run: Any) -> None:
    await run
    os._exit(0)  # nothing after the stopwatch counts, and Faust takes seconds to stop


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:6]))
