"""Opens the ledgers of a changelog as a worker that takes them over: read back, restore, check."""

import asyncio
import os
import sys
import time

import uvloop

from bench.ground import PARTITIONS, settings_of
from bench.stopwatch import Stopwatch
from connectors.config.connections import kafka_connection
from connectors.kafka.admin import topic_ids
from connectors.kafka.client_config import aiokafka_config
from schemas.topics import TopicNames
from streams.runtime.garbage_collection import collect_seldom
from streams.state.ledger import Ledger, LedgerCache, LedgerConfig


async def main(bootstrap: str, prefix: str) -> None:
    """Open every ledger with the prefix; the count is that of the restored identities."""
    settings = settings_of(bootstrap, prefix)
    topics = TopicNames.with_prefix(prefix)
    kafka = kafka_connection(settings)
    topic_id = topic_ids(kafka, [topics.raw])[topics.raw]
    place = LedgerConfig(
        aiokafka_config(kafka), topics, topic_id, PARTITIONS, f"{prefix}meterbridge-meter", settings.deployment_name
    )
    shelf = LedgerCache(time.monotonic)
    ledgers = [Ledger(number, place, shelf, lambda: time.time_ns() // 1000) for number in range(PARTITIONS)]
    collect_seldom()
    watch = Stopwatch()
    watch.start()
    state = await asyncio.gather(*(ledger.open() for ledger in ledgers))
    watch.stop(sum(len(one.seen) for one in state))
    os._exit(0)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:3]))
