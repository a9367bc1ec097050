"""Opens all ledgers of a changelog in one process, as a worker that takes them over, and prints what that cost."""

import asyncio
import json
import os
import sys
import time

import uvloop

from bench.capacity.process_cost import cost_of
from bench.ground import settings_of
from connectors.config.connections import kafka_connection
from connectors.kafka.admin import topic_ids
from connectors.kafka.client_config import aiokafka_config
from schemas.topics import TopicNames
from streams.runtime.garbage_collection import collect_seldom
from streams.state.ledger import Ledger, LedgerCache, LedgerConfig


async def main(bootstrap: str, prefix: str, partitions: int) -> None:
    """Memory is counted without what the interpreter and the imports take."""
    settings = settings_of(bootstrap, prefix, KAFKA_PARTITIONS=str(partitions))
    topics, kafka = TopicNames.with_prefix(prefix), kafka_connection(settings)
    topic_id = topic_ids(kafka, [topics.raw])[topics.raw]
    group = f"{prefix}meterbridge-meter"
    place = LedgerConfig(aiokafka_config(kafka), topics, topic_id, partitions, group, settings.deployment_name)
    shelf = LedgerCache(time.monotonic)
    ledgers = [Ledger(number, place, shelf, lambda: time.time_ns() // 1000) for number in range(partitions)]
    collect_seldom()
    before, begun = cost_of(os.getpid()), time.perf_counter()
    states = await asyncio.gather(*(ledger.open() for ledger in ledgers))
    wall_s, after = time.perf_counter() - begun, cost_of(os.getpid())
    found = {
        "identities": sum(len(state.seen) for state in states),
        "table": sum(state.seen.nbytes for state in states),
        "wall_s": wall_s,
        "cpu_s": after.cpu_s - before.cpu_s,
        "pss": after.pss - before.pss,
        "peak": after.peak - before.peak,
    }
    print(json.dumps(found), flush=True)
    os._exit(0)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:3], int(sys.argv[3])))
