"""The meter role as a worker runs it: dedupe, Decimal, mapping, windows, enriched topic, changelog, transactions."""

import asyncio
import os
import sys
from dataclasses import replace

import uvloop
from prometheus_client import CollectorRegistry

from bench.ground import settings_of
from bench.stopwatch import Stopwatch
from connectors.config.connections import kafka_connection
from connectors.kafka.admin import topic_ids
from connectors.processes.worker_parts import parts_of
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.worker_metrics import WorkerSensors
from schemas.topics import TopicNames
from streams.app import build_meter
from streams.core.metering.step_changes import Changes
from streams.delivery.engine import Delivery
from streams.runtime.faust_transport import FetchBatch
from streams.runtime.partition_task import PartitionTask
from streams.runtime.run import run_role


class _Watched(WorkerSensors):
    """The worker's sensors with a stopwatch: from the first records at a partition task to the last commit."""

    def __init__(self, metrics: Metrics, records: int) -> None:
        super().__init__(metrics, asyncio.get_running_loop().time)
        self.done = asyncio.Event()
        self._watch = Stopwatch()
        self._records = self._left = records
        offer = PartitionTask.offer

        def offered(partition_task: PartitionTask, fetch_batch: FetchBatch) -> None:
            self._watch.start()
            offer(partition_task, fetch_batch)

        PartitionTask.offer = offered  # type: ignore[method-assign]

    def folded(self, partition: int, changes: Changes, seconds: float) -> None:
        super().folded(partition, changes, seconds)
        self._left -= sum(changes.decisions.values())
        if self._left <= 0 and not self.done.is_set():
            self._watch.stop(self._records)
            self.done.set()


async def main(bootstrap: str, inputs: str, outputs: str, records: int) -> None:
    """Fold `records` calls from the topics with the prefix `inputs`; state and results go to those with `outputs`."""
    settings = settings_of(bootstrap, outputs)
    metrics = Metrics(CollectorRegistry(), "bench")
    watched = _Watched(metrics, records)
    parts = parts_of(settings, _posts_nothing, metrics)
    given = TopicNames.with_prefix(inputs)
    topics = replace(parts.topics, raw=given.raw, customers=given.customers, orgs=given.orgs)
    ids = topic_ids(kafka_connection(settings), [given.raw])
    parts = replace(parts, topics=topics, topic_ids=ids, sensors=watched)
    role = asyncio.ensure_future(run_role(build_meter(parts), asyncio.Event()))
    done = asyncio.ensure_future(watched.done.wait())
    await asyncio.wait({role, done}, return_when=asyncio.FIRST_COMPLETED)
    if role.done():
        role.result()
    os._exit(0)  # every record is committed; stopping is not measured


def _posts_nothing() -> Delivery:
    raise RuntimeError("the meter posts nothing")


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:4], int(sys.argv[4])))
