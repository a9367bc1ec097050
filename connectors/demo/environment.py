"""The demo's environment: a broker, a Lago, and each role of the product in its own process."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from connectors.config.http_client import HttpClient
from connectors.config.roles import ALWAYS
from connectors.demo.broker import embedded_broker
from connectors.demo.lago import METRIC, DemoLago
from connectors.demo.processes import Processes, free_ports, without_proxies
from connectors.demo.sample_orgs import Org, orgs_of
from connectors.demo.scraper import MetricsScraper
from schemas.errors import ConfigurationError, Unavailable

PARTITIONS: Final = 4
#: Windows and waits are shorter than the defaults (docs/configuration.md), so that events are billed within seconds.
_SETTINGS: Final = {
    "WINDOW_SECONDS": "5",
    "GRACE_SECONDS": "1",
    "RETRY_DELAY": "1",
    "HOST": "127.0.0.1",
    "KAFKA_PARTITIONS": str(PARTITIONS),
    "LAGO_EVENT_CODE": METRIC,
}
_UP_S = 60.0
#: Seconds: the timeout of the demo's own requests, how long a failed one is repeated, and the pause before a repeat.
_ANSWER_S, _PATIENCE_S, _AGAIN_S = 10.0, 20.0, 0.3


@dataclass(frozen=True, slots=True)
class DemoEnvironment:
    """The running environment.

    Fields:
        kafka: the broker's `host:port`.
        lago_url: of the sandbox, or of the given Lago.
        ingress, api: HTTP clients with the address and the token.
    """

    orgs: tuple[Org, ...]
    kafka: str
    lago_url: str
    lago: DemoLago
    scraper: MetricsScraper
    processes: Processes
    ingress: httpx.AsyncClient
    api: httpx.AsyncClient

    async def map(self, customer: str) -> None:
        """Map a customer to its org, through the API. Raises: Unavailable."""
        org = next(org for org in self.orgs if customer in org.customers)
        body = {"litellm_customer_id": customer, "lago_customer_id": org.id, "lago_organization_id": "demo"}

        async def mapped() -> bool:
            self.processes.check()
            answer = await self.api.post("/customers/mapping", json=body)
            return answer.is_success

        await _until(mapped, _PATIENCE_S, f"{customer} cannot be mapped")


@asynccontextmanager
async def built_environment(
    folder: Path, environ: Mapping[str, str], lago_url: str | None, lago_key: str
) -> AsyncIterator[DemoEnvironment]:
    """Start everything and prepare Lago. On exit everything is stopped; the logs in `folder` stay.

    Args:
        environ: the environment of the processes, without settings of the product: the demo sets them all.
        lago_url: a Lago to bill into, with `lago_key`; None = the sandbox, which is started here.

    Raises:
        MeterbridgeError: a process does not start.
    """
    run = secrets.token_hex(4)
    sandbox_port, port, *metrics = free_ports(2 + len(ALWAYS))
    url, key = _lago_of(lago_url, lago_key, sandbox_port)
    token, master_key = secrets.token_hex(16), secrets.token_hex(16)
    here = f"http://127.0.0.1:{port}"
    async with AsyncExitStack() as stack:
        kafka = stack.enter_context(embedded_broker(PARTITIONS))
        own = {
            "TMPDIR": str(folder),
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "DEPLOYMENT_NAME": f"demo-{run}",
            "LAGO_API_URL": url,
            "LAGO_API_KEY": key,
            "LITELLM_MASTER_KEY": master_key,
            "WEBHOOK_TOKEN": token,
            "PORT": str(port),
        }
        inherited = without_proxies(environ) if lago_url is None else environ
        processes = Processes(folder, {**inherited, **_SETTINGS, **own})
        stack.callback(processes.stop)
        if lago_url is None:
            processes.start("lago-sandbox", "lago-sandbox", "--port", str(sandbox_port))
        processes.start("serve", "serve", METRICS_PORT="0")
        processes.start("worker", "worker", "--only", ",".join(ALWAYS), METRICS_PORT=str(metrics[0]))

        async def client(base_url: str, bearer: str = "", *, loopback: bool = True) -> httpx.AsyncClient:
            headers = {"Authorization": f"Bearer {bearer}"}
            return await stack.enter_async_context(
                HttpClient(_ANSWER_S, base_url=base_url, headers=headers, trust_env=not loopback)
            )

        ingress, lago_http = await client(here, token), await client(url, key, loopback=lago_url is None)
        pages = [f"{here}/health/metrics", *(f"http://127.0.0.1:{number}/metrics" for number in metrics)]
        environment = DemoEnvironment(
            orgs_of(run),
            kafka,
            url,
            DemoLago(lago_http, sandbox=lago_url is None),
            MetricsScraper(ingress, pages),
            processes,
            ingress,
            await client(here, master_key),
        )
        await _until(lambda: _up(environment, lago_http), _UP_S, "not everything came up")
        await environment.lago.prepare(environment.orgs)
        yield environment


def _lago_of(lago_url: str | None, lago_key: str, sandbox_port: int) -> tuple[str, str]:
    """Lago's address and API key. Raises: ConfigurationError."""
    if lago_url is None:
        return f"http://127.0.0.1:{sandbox_port}", "sandbox"
    if not lago_key:
        raise ConfigurationError("LAGO_API_KEY", "LAGO_API_KEY is needed to bill into a Lago of your own")
    return lago_url.rstrip("/").removesuffix("/api/v1"), lago_key


async def _up(environment: DemoEnvironment, lago: httpx.AsyncClient) -> bool:
    environment.processes.check()
    reading = await environment.scraper.read()
    if reading.ledgers < PARTITIONS or reading.processes <= len(ALWAYS):
        return False
    return (await environment.ingress.get("/health/ready")).is_success and (await lago.get("/health")).is_success


async def _until(probe: Callable[[], Awaitable[Any]], limit_s: float, otherwise: str) -> None:
    """Return when `probe` returns true; a failed connection counts as false. Raises: Unavailable after `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            if await probe():
                return
        except httpx.RequestError:
            pass
        if time.monotonic() > deadline:
            raise Unavailable("demo_not_up", f"{otherwise} within {limit_s:.0f} s")
        await asyncio.sleep(_AGAIN_S)
