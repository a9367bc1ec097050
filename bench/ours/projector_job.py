"""The project role as a worker runs it: decode, rows, double bills, debits, offsets, transactions of Postgres."""

import asyncio
import sys
from dataclasses import replace

import uvloop
from prometheus_client import CollectorRegistry

from bench.ground import settings_of
from bench.ours.measured_role import Countdown, posts_nothing, run_until_over
from bench.server_cpu import with_postgres
from bench.stopwatch import Stopwatch
from connectors.processes.worker_parts import parts_of
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.worker_sensors import WorkerSensors
from schemas.tables import USAGE
from streams.agents.projector import Projected
from streams.app import build_project
from streams.runtime.faust_transport import FetchBatch
from streams.runtime.partition_task import PartitionTask


class _Watched(WorkerSensors):
    """The worker's sensors with a stopwatch: from the first calls at a partition task to the last commit."""

    def __init__(self, metrics: Metrics, topic: str, countdown: Countdown) -> None:
        super().__init__(metrics, asyncio.get_running_loop().time)
        self._countdown = countdown
        offer = PartitionTask.offer

        def offered(partition_task: PartitionTask, fetch_batch: FetchBatch) -> None:
            if partition_task.tp.topic == topic:
                countdown.start()
            offer(partition_task, fetch_batch)

        setattr(PartitionTask, "offer", offered)  # noqa: B010  # the first calls arrive here

    def projected(self, topic: str, projected: Projected) -> None:
        super().projected(topic, projected)
        self._countdown.done(projected.rows.get(USAGE, 0))


async def main(bootstrap: str, prefix: str, url: str, postmaster: int, records: int) -> None:
    """Project the topics with the prefix into the database until `records` calls are in the usage log."""
    settings = settings_of(bootstrap, prefix, DATABASE_URL=url)
    metrics = Metrics(CollectorRegistry(), "bench")
    parts = parts_of(settings, posts_nothing, metrics)
    countdown = Countdown(Stopwatch(with_postgres(postmaster)), records)
    watched = _Watched(metrics, parts.topics.enriched, countdown)
    await run_until_over(build_project(replace(parts, sensors=watched)), countdown)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
