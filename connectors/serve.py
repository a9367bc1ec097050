"""`meterbridge serve`: the webhooks and the management API, in one process or each in its own.

The listeners come up first and answer 503 until Kafka is there and its topics are right: a missing topic ends
the process, an absent broker does not. Neither Lago nor Postgres is needed.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import structlog
import uvloop
from aiohttp import web
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from connectors.http.api import api_routes, create_app
from connectors.http.auth import WebhookAuth, check_exposure
from connectors.http.health import Dependency, Health, Probe, lago_probe, postgres_probe, redis_probe
from connectors.http.ingress import IngressDeps, ingress_routes
from connectors.http.storing import Store
from connectors.kafka.gate import Gate, kafka_probe
from connectors.kafka.producer import KafkaProducer, producer_config
from connectors.kafka.security import aiokafka_config, librdkafka_config
from connectors.lago.client import LagoClient, lago_http
from connectors.mappings import Mappings
from connectors.metrics import IngressSensors, Metrics, start_metrics_server
from connectors.receipts import ReceiptsFollower
from connectors.settings import Settings
from schemas.customers import CustomerRecord, OrgRecord
from schemas.errors import ConfigurationError
from schemas.moments import HOUR_US, SECOND_US
from schemas.topics import TopicNames
from streams.core.remap import KEEP_US
from streams.followers import Follower

WEBHOOKS, API = PARTS = ("webhooks", "api")
API_ALONE_PORT = 3002

#: SIGTERM to exit takes less than 10 s: requests under way, records under way, then the process ends anyway.
_REQUESTS_S, _FLUSH_S, _STOP_S = 4.0, 3.0, 9.0
_LEARN_EVERY_S, _SHOW_EVERY_S = 15.0, 5.0
_LAGO_CONNECTIONS = 8
_EXIT_STUCK = 70

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """A running server.

    Fields:
        ports: by part; two parts may share one.
        started: done once topics are right and tables are read, or with the error that ends the server.
    """

    ports: dict[str, int]
    started: "asyncio.Future[None]"


def run_serve(settings: Settings, parts: Collection[str]) -> int:
    """Serve until SIGTERM or SIGINT; the exit code.

    Raises:
        ConfigurationError: a port cannot be had, or the webhooks would be open to everybody.
        TopicProblem: topics are missing or wrong.
    """
    return uvloop.run(_until_told(settings, parts))


async def _until_told(settings: Settings, parts: Collection[str]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told() -> None:
        stop.set()
        loop.call_later(_STOP_S, os._exit, _EXIT_STUCK)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    async with serving(settings, parts) as served:
        _log.info("serving", host=settings.host, **served.ports)
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({stopping, served.started}, return_when=asyncio.FIRST_COMPLETED)
        if served.started.done():
            served.started.result()
            _log.info("ready")
        await stopping
    _log.info("stopped")
    return 0


@asynccontextmanager
async def serving(settings: Settings, parts: Collection[str]) -> AsyncIterator[Served]:
    """Serve `parts` while the block runs: listening on entry, gracefully stopped on exit.

    Raises: see `run_serve`; a TopicProblem through `Served.started`.
    """
    auth = WebhookAuth(_revealed(settings.webhook_secret), _revealed(settings.webhook_token))
    if WEBHOOKS in parts:
        check_exposure(settings.host, auth, allow_unsigned=settings.allow_unsigned)
    async with AsyncExitStack() as stack:
        metrics = Metrics(CollectorRegistry(), version("meterbridge"))
        if settings.metrics_port:
            stack.callback(start_metrics_server(metrics.registry, settings.host, settings.metrics_port).stop)
        producer = KafkaProducer(_producer_config(settings))
        stack.push_async_callback(producer.close, _FLUSH_S)
        gate = Gate(producer)
        http = await stack.enter_async_context(lago_http(settings.lago_timeout, _LAGO_CONNECTIONS))
        key = settings.lago_api_key.get_secret_value() if settings.lago_api_key else ""
        lago = LagoClient(http, settings.lago_api_url, key, metrics.lago_requested)
        health = Health(_dependencies(settings, lago), gate.shut_because, time.monotonic, metrics.registry)
        health.start()
        stack.push_async_callback(health.stop)
        starts: list[Coroutine[Any, Any, None]] = [gate.open_when_right(settings)]
        routes: dict[str, Iterable[web.RouteDef]] = {}
        if API in parts:
            api = _Api(settings, gate, lago, metrics)
            stack.push_async_callback(api.stop)
            starts.append(api.start())
            routes[API] = api.routes
        if WEBHOOKS in parts:
            routes[WEBHOOKS] = _webhook_routes(settings, auth, gate, metrics)
        started = asyncio.ensure_future(_one_after_the_other(starts))
        stack.push_async_callback(_cancelled, started)
        ports: dict[str, int] = {}
        for port, names in _listeners(settings, parts).items():
            app = create_app(health.routes(), *(routes[name] for name in names))
            ports.update(dict.fromkeys(names, await _listen(stack, app, settings.host, port)))
        yield Served(ports, started)
