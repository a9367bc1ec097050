"""A sink's process respects its settings: events in a request, and concurrent requests."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from lago_python_client.client import Client

from connectors.lago_sandbox import create_sandbox
from schemas.records import LagoEvent
from tests.faults.kill_at_step import worker
from tests.support.eventually import PATIENCE, soon
from tests.support.http_client import http_client
from tests.support.posting import statuses
from tests.support.sandbox import KEY, Lago
from tests.support.stage import Stage

EVENTS = 120


class Watched:
    """Sees every post of events on its way into the sandbox, and delays it for a while."""

    def __init__(self) -> None:
        self.sizes = list[int]()
        self.in_flight = self.most = 0

    @web.middleware
    async def look(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.method != "POST":
            return await handler(request)
        self.sizes.append(len(json.loads(await request.read())["events"]))
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await asyncio.sleep(0.2)
            return await handler(request)
        finally:
            self.in_flight -= 1


@pytest.mark.parametrize(("batch", "concurrency"), [(2, 3), (7, 1)])
async def test_batches_and_concurrent_requests_are_those_of_the_settings(
    stage: Stage, tmp_path: Path, batch: int, concurrency: int
) -> None:
    """More events wait than one request takes, and more than may be in flight."""
    watched = Watched()
    application = create_sandbox(clock=time.time)
    application.middlewares.append(watched.look)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url, at = f"http://127.0.0.1:{runner.addresses[0][1]}", f"{int(time.time())}.000"
    for number in range(EVENTS):
        subscription = f"sub-{number % 7}"
        event = LagoEvent(f"e-{number}", subscription, "ai_usage", at, "1.5", {"unit": "1", "requests": "1"})
        stage.producer.produce(stage.topics.events, msgspec.json.encode(event), subscription)
    stage.producer.flush(10 * PATIENCE)
    result = {"BATCH_SIZE": str(batch), "WORKER_CONCURRENCY": str(concurrency)}
    try:
        async with http_client(base_url=url, trust_env=False) as http:
            lago = Lago(url, http, Client(api_key=KEY, api_url=url))
            async with worker(["connectors", "worker", "--only", "sink"], stage, lago, tmp_path, **result) as process:
                process.start()
                await soon(lambda: list(statuses(stage).values()).count("completed") == EVENTS, limit_s=60)
    finally:
        await runner.cleanup()
    assert sum(watched.sizes) == EVENTS
    assert (max(watched.sizes), watched.most) == (batch, concurrency)
