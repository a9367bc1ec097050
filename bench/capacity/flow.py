"""What calls leave behind: bytes in each topic and table, events, posts to Lago, and CPU time of the sink.

All calls wait when the workers start, so batches are full. The workers run as processes of their own with the settings that ship;
Lago is the sandbox. All figures are of what was billed when the run ended: on a busy machine that may be a part of the calls.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg

from bench.capacity.broker import WeighedKafka, committed, environment, started, until
from bench.capacity.process_cost import cpu_s_of
from bench.ground import PARTITIONS, Ground
from bench.records import stored
from schemas.moments import SECOND_US
from schemas.topics import TopicNames
from schemas.wire import FLAT, SLP
from tests.support.database import migrated_database
from tests.support.ports import free_port
from tests.support.postgres import LocalPostgres

_CALLS, _SHAPES = 50_000, 10_000
_AGO_US = 600 * SECOND_US
_UP_S, _DONE_S = 240.0, 900.0
_WORKERS = ("meter", "sink", "project")
_TRANSACTIONAL = ("enriched", "changelog", "events", "receipts", "deliveries")
_SIZE = """
SELECT coalesce((SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree($1::regclass)), pg_total_relation_size($1::regclass))::bigint
"""
_BILLED = "SELECT coalesce(sum(calls), 0)::bigint FROM lago_events WHERE status = 'completed'"


def measured(broker: WeighedKafka) -> Iterator[dict[str, Any]]:
    """One row: the run, and the stored size of a StandardLoggingPayload."""
    postgres = LocalPostgres()
    try:
        found = asyncio.run(_run(broker, postgres))
    finally:
        postgres.stop()
    ground = Ground(broker.bootstrap)
    topic = TopicNames.with_prefix(ground.corner()).raw
    ground.fill(stored(SLP, _SHAPES, topic, time.time_ns() // 1000))
    yield {**found, "raw_slp": round(broker.bytes_of(topic) / _SHAPES, 1)}


async def _run(broker: WeighedKafka, postgres: LocalPostgres) -> dict[str, Any]:
    ground = Ground(broker.bootstrap)
    prefix = ground.corner()
    topics = TopicNames.with_prefix(prefix)
    ground.map_customers(prefix)
    ground.fill(stored(FLAT, _CALLS, topics.raw, time.time_ns() // 1000 - _AGO_US))
    async with migrated_database(postgres.url) as url:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meterbridge-capacity-")))
            workers = await asyncio.to_thread(_started, stack, broker.bootstrap, prefix, url, folder)
            rows = await _settled(url, workers)
            sink_s, restarts = workers["sink"].cpu_s(), sum(worker.restarts for worker in workers.values())
        read = {name: committed(broker.bootstrap, getattr(topics, name)) for name in _TRANSACTIONAL}
    calls, events, posts = (read[name].records for name in ("enriched", "events", "deliveries"))
    return {
        "calls": calls,
        "events": events,
        "posts": posts,
        "restarts": restarts,
        "raw": round(broker.bytes_of(topics.raw) / _CALLS, 1),
        "raw_plain": round(committed(broker.bootstrap, topics.raw).size / _CALLS, 1),
        "enriched": round(read["enriched"].size / calls, 1),
        "changelog": round(read["changelog"].size / calls, 1),
        "an_event": {name: round(read[name].size / events, 1) for name in ("events", "receipts", "deliveries")},
        **rows,
        "sink_us": round(sink_s * 1e6 / events, 1),
    }


class _Worker:
    """A worker that is started again when it has ended by itself, as it is in production."""

    def __init__(self, stack: ExitStack, role: str, environ: Mapping[str, str], folder: Path) -> None:
        self._stack, self._role, self._environ, self._folder = stack, role, environ, folder
        self.restarts, self._before, self._last = 0, 0.0, 0.0
        self._start()

    def wait(self) -> None:
        """Until its partitions are open; CPU time counts from here on."""
        until(lambda: "partitions_opened" in self._log.read_text(), _UP_S, self._role)
        self._before = -self.cpu_s()

    def cpu_s(self) -> float:
        """Of all its processes, seconds."""
        if self._process.returncode is None:
            self._last = cpu_s_of(self._process.pid)
        return self._before + self._last

    def again(self) -> None:
        """Start it again if it has ended."""
        self.cpu_s()
        if self._process.poll() is not None:
            self._before, self._last = self._before + self._last, 0.0
            self.restarts += 1
            self._start()

    def _start(self) -> None:
        self._log = self._folder / f"{self._role}-{self.restarts}.log"
        command = [sys.executable, "-m", "connectors", "worker", "--only", self._role]
        self._process = started(self._stack, command, self._environ, self._log)


def _started(stack: ExitStack, bootstrap: str, prefix: str, url: str, folder: Path) -> dict[str, _Worker]:
    port = str(free_port())
    other = {"LAGO_API_URL": f"http://127.0.0.1:{port}", "LAGO_API_KEY": "lago-key", "DATABASE_URL": url}
    environ = environment(bootstrap, prefix, PARTITIONS, **other, METRICS_PORT="0")
    sandbox = [sys.executable, "-m", "connectors", "lago-sandbox", "--port", port]
    started(stack, sandbox, environ, folder / "sandbox.log")
    workers = {role: _Worker(stack, role, environ, folder) for role in _WORKERS}
    for worker in workers.values():
        worker.wait()
    return workers


async def _settled(url: str, workers: Mapping[str, _Worker]) -> dict[str, float]:
    """When every call is billed, or the time is over: bytes a row, with indexes."""
    connection, until_s = await asyncpg.connect(url), time.monotonic() + _DONE_S
    try:
        while await connection.fetchval(_BILLED) != _CALLS and time.monotonic() < until_s:
            await asyncio.sleep(0.5)
            for worker in workers.values():
                worker.again()
        counted = {
            "row_call": await _a_row(connection, "llm_usage_log"),
            "row_event": await _a_row(connection, "usage_parts"),
        }
        return {name: round(size, 1) for name, size in counted.items()}
    finally:
        await connection.close()


async def _a_row(connection: Any, table: str) -> float:
    size = await connection.fetchval(_SIZE, table)
    return float(size) / int(await connection.fetchval(f"SELECT count(*) FROM {table}"))  # a name of our own
