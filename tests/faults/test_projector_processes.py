"""The projector as a process: killed, frozen, and asked to stop while Postgres is unavailable or silent."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from tests.faults.procs import Process
from tests.faults.stage_process import stage_process
from tests.support.database import rows, until
from tests.support.enriched import put
from tests.support.eventually import PATIENCE, soon
from tests.support.postgres import Postgres
from tests.support.stage import Stage

pytestmark = pytest.mark.faults


def projector(name: str, stage: Stage, database: str, folder: Path) -> Process:
    """Start `meterbridge worker --only project` as a process."""
    return stage_process(name, "worker --only project", stage, folder, "partitions_opened", DATABASE_URL=database)


@contextmanager
def load(stage: Stage, a_second: int = 400, limit_s: float = 120.0) -> Iterator[list[int]]:
    """Sends calls while the block runs; the list contains their number."""
    stop, sent = threading.Event(), [0]
    deadline = time.monotonic() + limit_s * PATIENCE

    def send() -> None:
        while not stop.wait(0.05) and time.monotonic() < deadline:
            put(stage, range(sent[0], sent[0] + a_second // 20))
            sent[0] += a_second // 20

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()


async def test_killed_and_frozen_projectors_write_every_row_once(stage: Stage, database: str, tmp_path: Path) -> None:
    """A killed one is in the middle of its work; a frozen one continues after its partitions have another owner."""
    one, two = (projector(name, stage, database, tmp_path) for name in ("one", "two"))
    count = "SELECT count(*) FROM llm_usage_log"
    try:
        with load(stage) as sent:
            one.start()
            await one.up()
            await until(database, count, lambda calls: calls > 500)
            await one.kill()
            two.start()
            await two.up()
            there = await until(database, count, lambda calls: calls > 500)
            await until(database, count, lambda calls: calls > there + 500, 60)
            one.start()
            await one.up()
            slowest = "SELECT min(next) FROM projector_offsets WHERE topic LIKE '%enriched'"
            freezing = asyncio.ensure_future(two.freeze(24))
            there = (await rows(database, slowest))[0][0]
            await until(database, slowest, lambda offset: offset > there + 1000, 60)  # every partition has an owner
            await freezing
            await one.kill()
        await until(database, count, lambda calls: calls == sent[0], 60)
        held = await rows(database, "SELECT sum(calls)::int, sum(cost_usd) FROM held_parts")
        assert held == [(sent[0] // 10, Decimal("0.000145") * (sent[0] // 10))]
        assert await rows(
            database, "SELECT sum(next)::int FROM projector_offsets WHERE topic = $1", stage.topics.enriched
        ) == [(sent[0],)]
    finally:
        for process in (one, two):
            await process.kill()


async def test_a_projector_without_postgres_stops_within_ten_seconds(
    stage: Stage, postgres: Postgres, database: str, tmp_path: Path
) -> None:
    """It has rows that it cannot write, and must still stop in time."""
    worker = projector("worker", stage, database, tmp_path)
    put(stage, range(100))
    try:
        worker.start()
        await worker.up()
        await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 100)
        await asyncio.to_thread(postgres.kill)
        put(stage, range(100, 200))
        await soon(lambda: "projection_held" in worker.tail(100_000), 20)
        death = await worker.terminate()
        assert death is not None and death.code == 0, worker.tail()
    finally:
        await worker.kill()
        await asyncio.to_thread(postgres.restart)


async def test_a_projector_whose_postgres_does_not_answer_stops_within_ten_seconds(
    stage: Stage, postgres_url: str, database: str, tmp_path: Path
) -> None:
    """The server is running and silent in the middle of a transaction: here the transaction waits for a lock."""
    worker = projector("worker", stage, database, tmp_path)
    put(stage, range(10))
    try:
        worker.start()
        await worker.up()
        await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 10)
        blocker = await asyncpg.connect(database)
        await blocker.execute("BEGIN; LOCK TABLE llm_usage_log, usage_parts IN ACCESS EXCLUSIVE MODE")
        put(stage, range(10, 20))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        await until(database, waiting, lambda count: count > 0)
        death = await worker.terminate()
        assert death is not None and death.code == 0, worker.tail()
        await blocker.close()
        worker.start()
        await worker.up()
        await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 20)
    finally:
        await worker.kill()
