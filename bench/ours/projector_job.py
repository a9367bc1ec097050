"""The project role as a worker runs it: decode, rows, double bills, debits, offsets, transactions of Postgres."""

import asyncio
import os
import sys
from dataclasses import replace

import uvloop
from prometheus_client import CollectorRegistry

from bench.ground import settings_of
from bench.server_cpu import with_postgres
from bench.stopwatch import Stopwatch
from connectors.processes.worker_parts import parts_of
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.worker_metrics import WorkerSensors
from schemas.tables import USAGE
from streams.agents.projector import Projected
from streams.app import build_project
from streams.delivery.engine import Delivery
from streams.runtime.faust_transport import FetchBatch
from streams.runtime.partition_task import PartitionTask
from streams.runtime.run import run_role


class _Watched(WorkerSensors):
    """The worker's sensors with a stopwatch: from the first calls at a partition task to the last commit."""

    def __init__(self, metrics: Metrics, topic: str, postmaster: int, records: int) -> None:
        super().__init__(metrics, asyncio.get_running_loop().time)
        self.done = asyncio.Event()
        self._watch = Stopwatch(with_postgres(postmaster))
        self._records = self._left = records
        offer = PartitionTask.offer

        def offered(partition_task: PartitionTask, fetch_batch: FetchBatch) -> None:
            if partition_task.tp.topic == topic:
                self._watch.start()
            offer(partition_task, fetch_batch)

        setattr(PartitionTask, "offer", offered)  # noqa: B010  # the first calls arrive here

    def projected(self, topic: str, projected: Projected) -> None:
        super().projected(topic, projected)
        self._left -= projected.rows.get(USAGE, 0)
        if self._left <= 0 and not self.done.is_set():
            self._watch.stop(self._records)
            self.done.set()


async def main(bootstrap: str, prefix: str, url: str, postmaster: int, records: int) -> None:
    """Project the topics with the prefix into the database until `records` calls are in the usage log."""
    settings = settings_of(bootstrap, prefix, DATABASE_URL=url)
    metrics = Metrics(CollectorRegistry(), "bench")
    parts = parts_of(settings, _posts_nothing, metrics)
    watched = _Watched(metrics, parts.topics.enriched, postmaster, records)
    role = asyncio.ensure_future(run_role(build_project(replace(parts, sensors=watched)), asyncio.Event()))
    done = asyncio.ensure_future(watched.done.wait())
    await asyncio.wait({role, done}, return_when=asyncio.FIRST_COMPLETED)
    if role.done():
        role.result()
    os._exit(0)  # every row is committed; stopping is not measured


def _posts_nothing() -> Delivery:
    raise RuntimeError("the projector posts nothing")


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
