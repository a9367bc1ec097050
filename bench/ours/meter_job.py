"""The meter role as a worker runs it: dedupe, Decimal, mapping, windows, enriched topic, changelog, transactions."""

import asyncio
import sys
from dataclasses import replace

import uvloop
from prometheus_client import CollectorRegistry

from bench.ground import settings_of
from bench.ours.measured_role import Countdown, posts_nothing, run_until_over
from bench.stopwatch import Stopwatch
from connectors.config.connections import kafka_connection
from connectors.kafka.admin import topic_ids
from connectors.processes.worker_parts import parts_of
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.worker_sensors import WorkerSensors
from schemas.topics import TopicNames
from streams.app import build_meter
from streams.core.metering.step_changes import Changes
from streams.runtime.faust_transport import FetchBatch
from streams.runtime.partition_task import PartitionTask


class _Watched(WorkerSensors):
    """The worker's sensors with a stopwatch: from the first records at a partition task to the last commit."""

    def __init__(self, metrics: Metrics, countdown: Countdown) -> None:
        super().__init__(metrics, asyncio.get_running_loop().time)
        self._countdown = countdown
        offer = PartitionTask.offer

        def offered(partition_task: PartitionTask, fetch_batch: FetchBatch) -> None:
            countdown.start()
            offer(partition_task, fetch_batch)

        PartitionTask.offer = offered  # type: ignore[method-assign]

    def folded(self, partition: int, changes: Changes, seconds: float) -> None:
        super().folded(partition, changes, seconds)
        self._countdown.done(sum(changes.decisions.values()))


async def main(bootstrap: str, inputs: str, outputs: str, records: int) -> None:
    """Fold `records` calls from the topics with the prefix `inputs`; state and results go to those with `outputs`."""
    settings = settings_of(bootstrap, outputs)
    metrics = Metrics(CollectorRegistry(), "bench")
    countdown = Countdown(Stopwatch(), records)
    parts = parts_of(settings, posts_nothing, metrics)
    given = TopicNames.with_prefix(inputs)
    topics = replace(parts.topics, raw=given.raw, customers=given.customers, orgs=given.orgs)
    ids = topic_ids(kafka_connection(settings), [given.raw])
    parts = replace(parts, topics=topics, topic_ids=ids, sensors=_Watched(metrics, countdown))
    await run_until_over(build_meter(parts), countdown)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:4], int(sys.argv[4])))
