"""`meterbridge serve`: the webhooks and the management API, in one process or each in its own.

The listeners start first and answer 503 until Kafka answers and its topics are right. A missing topic ends the process.
If a broker does not answer, the process continues: it is unready until the broker is back, and with a spool it still
accepts calls. It needs neither Lago nor Postgres.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from connectors.config.connections import kafka_connection, revealed, topic_layout
from connectors.config.ports import port_refused
from connectors.config.settings import Settings
from connectors.http.client_address import ClientAddressPolicy
from connectors.http.connections import BoundedRunner
from connectors.http.health import Dependency, Health, Probe, lago_probe, postgres_probe, redis_probe
from connectors.http.middleware import RequestTracker, create_app
from connectors.http.unauthenticated_limits import UnauthenticatedConnections, own_bounds
from connectors.ingest.near_paths import naming_paths
from connectors.ingest.spool import Spool
from connectors.kafka.checked_producer import CheckedProducer, kafka_probe
from connectors.kafka.client_config import aiokafka_config, librdkafka_config, producer_config
from connectors.kafka.coordinator import meet_coordinator
from connectors.kafka.producer import KafkaProducer
from connectors.lago.client import LagoClient
from connectors.processes.arenas import few_arenas
from connectors.processes.certificates import watch_certificates
from connectors.processes.lagos import open_lagos
from connectors.processes.usage_ingress import WebhookIngress, checked_auth, kafka_patience_s
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.metrics_server import start_metrics_server
from connectors.telemetry.tracing import start_tracing
from schemas.organizations import DEFAULT
from schemas.topics import TopicNames
from streams.runtime.clock import now_us
from streams.runtime.event_loop import run_loop
from streams.runtime.garbage_collection import collect_seldom
from streams.runtime.shutdown import StopSignal, run_until_told

if TYPE_CHECKING:
    from connectors.processes.management_api import Management

WEBHOOKS, API = PARTS = ("webhooks", "api")
API_ALONE_PORT = 3002
#: Period of the API's requests to Lago for unknown subscriptions, seconds.
LEARN_EVERY_S = 15.0

#: Parts of `STOP_S`, seconds: for open requests, for closing them (aiohttp waits that long twice), for unsent records.
_REQUESTS_S, _CLOSE_S, _FLUSH_S = 3.0, 0.5, 3.0
_LAGO_CONNECTIONS = 8

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A running server.

    Fields:
        ports: by part; two parts may share one.
        asked: set once the topics are right, or Kafka did not answer a question about them.
        ready: set once topics are right and tables are read.
        life: ends only if the server cannot continue, with the error.
    """

    ports: dict[str, int]
    asked: asyncio.Event
    ready: asyncio.Event
    life: asyncio.Future[None]


def run_serve(settings: Settings, parts: Collection[str]) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code.

    Raises:
        ConfigurationError: a port or the spool is not available, or the webhooks would accept any sender.
        TopicProblem: topics are missing or wrong.
    """

    async def work(word: StopSignal) -> int:
        async with serving(settings, parts) as served:
            stop = word.begun()
            collect_seldom()
            stopping, asked = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(served.asked.wait())
            ending: set[asyncio.Future[Any]] = {stopping, served.life}
            # With a missing topic the process ends, so it does not say before that it serves.
            await asyncio.wait({asked, *ending}, return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                _log.info("serving", host=settings.host, **served.ports)
            asked.cancel()
            await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if served.life.done():
                served.life.result()
        _log.info("stopped")
        return 0

    if WEBHOOKS not in parts:  # under load, the threads of an ingress allocate at the same time
        few_arenas()
    return run_until_told(work, run_loop)


@asynccontextmanager
async def serving(
    settings: Settings, parts: Collection[str], learn_every_s: float = LEARN_EVERY_S
) -> AsyncIterator[RunningServer]:
    """Serve `parts` while the context is entered: listen on entry, stop gracefully on exit.

    Raises: see `run_serve`. A later error is in `RunningServer.life`.
    """
    if WEBHOOKS in parts:
        checked_auth(settings)
    async with AsyncExitStack() as stack:
        metrics = Metrics(CollectorRegistry(), version("meterbridge"))
        metrics.has_roles(*parts)
        watch_certificates(settings, metrics)
        if settings.metrics_port:
            served = start_metrics_server(
                metrics.registry, settings.host, settings.metrics_port, metrics.connection_closed
            )
            stack.callback(served.stop)
        spool = None
        if WEBHOOKS in parts and settings.spool_path is not None:
            topics = TopicNames.with_prefix(settings.topic_prefix)
            spool = await Spool.at(settings.spool_path, settings.spool_max_bytes, (topics.raw, topics.rejected))
            stack.push_async_callback(spool.close)
        tracing = start_tracing(settings.tracing("ingress"), metrics.spans) if WEBHOOKS in parts else None
        if tracing is not None:
            stack.push_async_callback(tracing.close)
        headers = None if tracing is None else tracing.record_headers
        producer = KafkaProducer(_producer_config(settings), on_restamped=metrics.restamped.inc, headers=headers)
        stack.push_async_callback(producer.close, _FLUSH_S)
        gate = CheckedProducer(producer)
        lagos = await open_lagos(stack, settings, _LAGO_CONNECTIONS, metrics.requested_of)
        lago = lagos[DEFAULT]
        unauthenticated = _unauthenticated(settings, metrics)
        webhooks = None
        if WEBHOOKS in parts:
            webhooks = WebhookIngress(settings, gate, spool, metrics, unauthenticated, tracing)
        ready = asyncio.Event()
        storing = webhooks.shut_because if webhooks is not None else gate.shut_because

        def shut_because() -> str:
            """Why the process is unready. A spool takes calls without Kafka; changes of the API wait until it is ready."""
            awaits = API in parts and not gate.shut_because() and not ready.is_set()
            return storing() or ("coordinator_awaited" if awaits else "")

        spooling = gate.shut_because if spool is not None else lambda: ""
        health = Health(_dependencies(settings, lago, gate), shut_because, time.monotonic, metrics.registry, spooling)
        health.start()
        stack.push_async_callback(health.stop)
        routes: dict[str, list[web.RouteDef]] = {}
        management = None
        if API in parts:
            # This takes a fifth of the memory of an API, and an ingress alone does not need it.
            from connectors.processes.management_api import Management

            management = Management(settings, gate, lagos, metrics)
            routes[API] = management.routes()
        if webhooks is not None:
            routes[WEBHOOKS] = webhooks.routes()
        life = asyncio.ensure_future(_live(settings, gate, webhooks, management, ready, learn_every_s))
        stack.push_async_callback(_end, life)
        listeners = _listeners(settings, parts)
        tracker = RequestTracker()
        watching = [management.authorizer.watching] if management is not None else []
        apps = {
            port: create_app(
                tracker,
                health.routes(),
                *(routes[name] for name in names),
                watching=[naming_paths, *watching] if "webhooks" in names else watching,
            )
            for port, names in listeners.items()
        }
        taken = await stack.enter_async_context(_listening(apps, settings, listeners, tracker, unauthenticated))
        yield RunningServer(
            {name: taken[port] for port, names in listeners.items() for name in names}, gate.asked, ready, life
        )


@asynccontextmanager
async def _listening(
    apps: Mapping[int, web.Application],
    settings: Settings,
    listeners: Mapping[int, Collection[str]],
    tracker: RequestTracker,
    unauthenticated: UnauthenticatedConnections,
) -> AsyncIterator[dict[int, int]]:
    """Listen with each application on its port, and stop gracefully on exit.

    Args:
        listeners: the parts that each port serves.

    Yields:
        The real port by the requested port; they differ for port 0.

    Raises:
        ConfigurationError: the process cannot listen on a port.
    """
    runners = {
        port: BoundedRunner(app, settings.webhook_timeout, unauthenticated, access_log=None, shutdown_timeout=_CLOSE_S)
        for port, app in apps.items()
    }
    try:
        for port, runner in runners.items():
            await runner.setup()
            try:
                await web.TCPSite(runner, settings.host, port, backlog=unauthenticated.bounds.at_once).start()
            except OSError as error:
                setting = "PORT" if WEBHOOKS in listeners[port] else "API_PORT"
                raise port_refused(setting, port, settings.host, error) from error
        yield {port: int(runner.addresses[0][1]) for port, runner in runners.items()}
    finally:
        for runner in runners.values():
            for site in list(runner.sites):
                await site.stop()
        await tracker.close(_REQUESTS_S)
        await asyncio.gather(*(runner.cleanup() for runner in runners.values()))


async def _live(
    settings: Settings,
    gate: CheckedProducer,
    webhooks: WebhookIngress | None,
    management: "Management | None",
    ready: asyncio.Event,
    learn_every_s: float,
) -> None:
    kafka = kafka_connection(settings)
    await gate.open_when_right(kafka, topic_layout(settings))
    draining = [webhooks.work()] if webhooks is not None else []
    works = [gate.watch(kafka), *draining, _manage(settings, management, ready, learn_every_s)]
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        # `gather` ends with the first failed task; the other tasks may still have to write before the producer is
        # closed.
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_REQUESTS_S)


async def _manage(
    settings: Settings,
    management: "Management | None",
    ready: asyncio.Event,
    learn_every_s: float,
) -> None:
    async with AsyncExitStack() as stack:
        if management is not None:
            topic = TopicNames.with_prefix(settings.topic_prefix).customers
            await meet_coordinator(aiokafka_config(kafka_connection(settings)), f"{topic}-writer-ready")
            await stack.enter_async_context(management.running())
        ready.set()
        _log.info("ready")
        await (management.work(learn_every_s) if management is not None else asyncio.Event().wait())


async def _end(life: asyncio.Future[None]) -> None:
    life.cancel()
    await asyncio.wait({life})


def _dependencies(settings: Settings, lago: LagoClient, gate: CheckedProducer) -> dict[str, Dependency]:
    probes: dict[str, Probe] = {
        "kafka": kafka_probe(kafka_connection(settings), gate.clock_ahead_s),
        "lago": lago_probe(lago.healthy),
    }
    if (postgres := settings.postgres_url) is not None:
        probes["postgres"] = postgres_probe(revealed(postgres))
    if settings.redis_url is not None:
        probes["redis"] = redis_probe(revealed(settings.redis_url))
    return {name: Dependency(probe, time.monotonic, now_us) for name, probe in probes.items()}


def _unauthenticated(settings: Settings, metrics: Metrics) -> UnauthenticatedConnections:
    """Return the limits for connections without credentials, over all ports of this process."""
    origins = ClientAddressPolicy((), settings.trusted_proxies)
    return UnauthenticatedConnections(
        own_bounds(),
        origins,
        time.monotonic,
        on_closed=metrics.connection_closed,
        on_wrong=metrics.wrong_credentials.inc,
    )


def _listeners(settings: Settings, parts: Collection[str]) -> dict[int, list[str]]:
    """Return the parts that each port serves: both on one port, unless API_PORT is set."""
    alone = API_ALONE_PORT if WEBHOOKS not in parts else settings.port
    ports = {WEBHOOKS: settings.port, API: alone if settings.api_port is None else settings.api_port}
    listeners: dict[int, list[str]] = {}
    for part in PARTS:
        if part in parts:
            listeners.setdefault(ports[part], []).append(part)
    return listeners


def _producer_config(settings: Settings) -> dict[str, Any]:
    kafka = kafka_connection(settings)
    security = {name: value for name, value in librdkafka_config(kafka).items() if name != "logger"}
    return producer_config(kafka.servers, answer_within_s=kafka_patience_s(settings), security=security)
