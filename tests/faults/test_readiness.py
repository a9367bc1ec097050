"""`/health/ready` while Kafka becomes unavailable and comes back: killed, and frozen so that connections stay open and
silent.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from connectors.config.settings import Settings
from connectors.kafka.reachability import ANSWER_S, EVERY_S
from connectors.processes.server import API, WEBHOOKS, serving
from tests.support.eventually import PATIENCE
from tests.support.http_client import http_client
from tests.support.kafka import MavenKafka
from tests.support.server import settings_for

pytestmark = pytest.mark.faults

#: Two questions that Kafka does not answer, and the machine's own slowness: other tests run beside this one.
KNOWN_WITHIN_S = 2 * (EVERY_S + ANSWER_S) + 4
#: How often readiness is asked, and in how many answers in a row it must be the same: Kafka is asked twice meanwhile.
LOOK_EVERY_S = 0.1
STEADY = round(2 * EVERY_S / LOOK_EVERY_S)
CALL = b'{"id":"1","user":"u","spend":1}'
READY, UNREADY, SPOOLING = (200, ""), (503, "kafka_unavailable"), (200, "kafka_unavailable")


class Server:
    """A server whose readiness is asked ten times a second; its answers without repetitions."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.said: list[tuple[int, str]] = []
        self.answers = 0

    async def watch(self) -> None:
        while True:
            answer = await self.http.get("/health/ready")
            body: dict[str, Any] = answer.json()
            said = (answer.status_code, body.get("reason") or body.get("spooling", ""))
            self.answers += 1
            if said != (self.said[-1] if self.said else None):
                self.said.append(said)
            assert (await self.http.get("/health/live")).status_code == 200
            await asyncio.sleep(LOOK_EVERY_S)

    async def says(self, wanted: tuple[int, str], within_s: float) -> None:
        deadline = time.monotonic() + within_s * PATIENCE
        while self.said[-1:] != [wanted]:
            assert time.monotonic() < deadline, self.said
            await asyncio.sleep(0.05)

    async def answers_again(self, times: int, within_s: float) -> None:
        """Wait for this number of further answers of any kind."""
        wanted, deadline = self.answers + times, time.monotonic() + within_s * PATIENCE
        while self.answers < wanted:
            assert time.monotonic() < deadline, self.answers
            await asyncio.sleep(0.05)


@asynccontextmanager
async def watched(settings: Settings, part: str) -> AsyncIterator[Server]:
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(serving(settings, [part]))
        url = f"http://127.0.0.1:{served.ports[part]}"
        http = await stack.enter_async_context(http_client(base_url=url, timeout=10 * PATIENCE, trust_env=False))
        await asyncio.wait_for(served.ready.wait(), 60 * PATIENCE)
        server = Server(http)
        watching = asyncio.ensure_future(server.watch())
        stack.callback(watching.cancel)
        await server.says(READY, 10)
        server.said.clear()
        yield server
        if watching.done():
            watching.result()


async def test_readiness_follows_kafka_and_an_ingress_with_a_spool_stays_ready_and_reports_it(
    broker: MavenKafka, tmp_path: Path
) -> None:
    """A server that cannot store is removed from the load balancer within seconds and added again, once each without
    flapping.
    """
    settings = settings_for(broker, "r.").model_copy(update={"api_port": 0})
    spooled = settings.model_copy(update={"spool_path": tmp_path / "spool.db"})
    async with (
        watched(settings, API) as api,
        watched(settings, WEBHOOKS) as ingress,
        watched(spooled, WEBHOOKS) as spooling,
    ):
        servers = {api: UNREADY, ingress: UNREADY, spooling: SPOOLING}
        await asyncio.to_thread(broker.kill)
        await asyncio.gather(*(server.says(away, KNOWN_WITHIN_S) for server, away in servers.items()))
        taken = await spooling.http.post("/webhook/litellm/usage", content=CALL)
        assert taken.status_code == 202
        await asyncio.to_thread(broker.restart)
        await asyncio.gather(*(server.says(READY, KNOWN_WITHIN_S) for server in servers))
        assert broker._process is not None
        broker._process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.gather(*(server.says(away, KNOWN_WITHIN_S) for server, away in servers.items()))
        finally:
            broker._process.send_signal(signal.SIGCONT)
        await asyncio.gather(*(server.says(READY, KNOWN_WITHIN_S) for server in servers))
        await asyncio.gather(*(server.answers_again(STEADY, KNOWN_WITHIN_S) for server in servers))
        for server, away in servers.items():
            assert server.said == [READY, away, READY, away, READY][-len(server.said) :]
            assert len(server.said) in (4, 5)
