"""`meterbridge serve` in this process, on free ports, with real services."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx

from connectors.config.settings import Settings
from connectors.kafka.admin import create_topics
from connectors.processes.server import PARTS, WEBHOOKS, serving
from tests.support.eventually import PATIENCE
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.ports import free_port
from tests.support.values import topics_of

MASTER_KEY = "sk-master"
BEARER = {"Authorization": f"Bearer {MASTER_KEY}"}


@dataclass
class Server:
    """A running server; `http` sends no token by default."""

    ports: dict[str, int]
    http: httpx.AsyncClient

    async def map(self, customer: str = "customer-1", org: str = "org_1", **fields: Any) -> httpx.Response:
        """Send `POST /customers/mapping` with the master key."""
        body = {"litellm_customer_id": customer, "lago_customer_id": org, "lago_organization_id": "tenant"} | fields
        return await self.http.post("/customers/mapping", json=body, headers=BEARER)

    async def mapping(self, customer: str = "customer-1") -> httpx.Response:
        """Send `GET /customers/{id}/mapping` with the master key; the id must be quoted for a path."""
        return await self.http.get(f"/customers/{customer}/mapping", headers=BEARER)

    async def stats(self, until: Callable[[dict[str, Any]], bool] = lambda _answer: True) -> dict[str, Any]:
        """Send `GET /webhooks/stats`, once the topics have been read as far as `until` wants: before, it is 503 or
        less.
        """
        deadline = time.monotonic() + 10 * PATIENCE
        while True:
            answer = await self.http.get("/webhooks/stats", headers=BEARER)
            result: dict[str, Any] = answer.json()
            if answer.status_code == HTTPStatus.OK and until(result):
                return result
            assert time.monotonic() < deadline, f"still {answer.status_code}: {result}"
            await asyncio.sleep(0.05)


def settings_for(kafka: Kafka, prefix: str, **other: Any) -> Settings:
    """Settings for a broker and a prefix whose topics exist; Lago is unavailable unless `lago_api_url` is given."""
    settings = Settings(
        **{
            "kafka_bootstrap_servers": kafka.bootstrap,
            "kafka_partitions": 3,
            "topic_prefix": prefix,
            "lago_api_url": f"http://127.0.0.1:{free_port()}",
            "lago_api_key": "a-key",
            "litellm_master_key": MASTER_KEY,
            "port": 0,
            "metrics_port": 0,
            "allow_unauthenticated": True,
        }
        | other
    )
    create_topics(*topics_of(settings))
    return settings


@asynccontextmanager
async def running_server(
    settings: Settings, parts: Collection[str] = PARTS, learn_every_s: float = 3600
) -> AsyncIterator[Server]:
    """Yield a ready server; the API alone gets a free port as well."""
    if WEBHOOKS not in parts and settings.api_port is None:
        settings = settings.model_copy(update={"api_port": 0})
    async with serving(settings, parts, learn_every_s) as served:
        ready = asyncio.ensure_future(served.ready.wait())
        await asyncio.wait({ready, served.life}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        if served.life.done():
            served.life.result()
        assert ready.done(), "not ready within 30 s"
        port = next(iter(served.ports.values()))
        async with http_client(base_url=f"http://127.0.0.1:{port}", timeout=30 * PATIENCE, trust_env=False) as http:
            yield Server(served.ports, http)
