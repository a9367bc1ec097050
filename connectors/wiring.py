"""From settings to a role's parts: connections, topic ids, Lago, metrics. The workers' composition root."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

import structlog
from prometheus_client import CollectorRegistry

from connectors.kafka.admin import check_topics, topic_ids
from connectors.kafka.security import aiokafka_config, faust_broker, faust_credentials
from connectors.lago.client import LagoClient, LagoError, lago_http
from connectors.logs import configure_logging
from connectors.metrics import Metrics, WorkerSensors, start_metrics_server
from connectors.settings import Settings, load_settings
from schemas.errors import TopicProblem
from schemas.topics import TopicNames
from streams.core.backoff import RetryPolicy
from streams.core.breaker import Breaker
from streams.delivery import Delivery
from streams.parts import Parts

log = structlog.get_logger(__name__)

CLICKHOUSE = "clickhouse"
#: How often Lago is asked which event store it has.
_STORE_ASKED_S = 3600.0
_STORE_AGAIN_S = 15.0


class EventStore:
    """Which event store Lago has, asked again hourly: it decides what a resend is worth."""

    def __init__(self, lago: LagoClient, clickhouse_dedup: bool) -> None:
        self._lago = lago
        self._dedup = clickhouse_dedup
        self._store = ""

    def resend_is_safe(self) -> bool:
        """Whether the same event sent twice is billed once. Unknown counts as safe: Postgres is Lago's default,
        and a look-up that cannot be made would stop everything."""
        return self._store != CLICKHOUSE or self._dedup

    async def watch(self) -> None:
        """Ask for ever."""
        while True:
            try:
                self._store = (await self._lago.organization()).events_store or ""
                wait_s = _STORE_ASKED_S
            except LagoError as error:
                log.warning("event_store_unknown", reason=error.reason)
                wait_s = _STORE_AGAIN_S
            await asyncio.sleep(wait_s)


def parts_of(settings: Settings, delivery: Callable[[], Delivery], metrics: Metrics) -> Parts:
    """A role's parts. Asks the broker for topic ids and what is wrong with the topics.

    Raises:
        TopicProblem: `topics`: a sentence for each topic that is missing or wrong. Left alone, Faust
            would wait for it for ever and ignore SIGTERM.
    """
    wrong = check_topics(settings)
    if wrong:
        raise TopicProblem("topics", " ".join(wrong))
    topics = TopicNames.with_prefix(settings.topic_prefix)
    return Parts(
        kafka=aiokafka_config(settings),
        broker=faust_broker(settings),
        credentials=faust_credentials(settings),
        topics=topics,
        group_prefix=f"{settings.topic_prefix}{settings.deployment_name}-",
        partitions=settings.kafka_partitions,
        topic_ids=topic_ids(settings, [topics.raw]),
        policy=settings.meter_policy(),
        lead_s=max(settings.mapping_lead_seconds, 1.0),
        max_retries=settings.max_retries,
        retry_delay_s=settings.retry_delay,
        delivery=delivery,
        sensors=WorkerSensors(metrics, time.monotonic),
    )


@asynccontextmanager
async def worker_parts(settings: Settings, role: str) -> AsyncIterator[Parts]:
    """The parts of one role, with its metrics served and its Lago client open meanwhile."""
    metrics = Metrics(CollectorRegistry(), version("meterbridge"))
    if settings.metrics_port:
        start_metrics_server(metrics.registry, settings.host, settings.metrics_port)
    key = settings.lago_api_key.get_secret_value() if settings.lago_api_key else ""
    async with lago_http(settings.lago_timeout, settings.worker_concurrency) as http:
        lago = LagoClient(http, settings.lago_api_url, key, metrics.lago_requested)
        store = EventStore(lago, settings.lago_clickhouse_dedup)
        watching = asyncio.ensure_future(store.watch()) if role != "meter" else None
        delivery = _delivery(settings, lago, store, metrics)
        try:
            yield await asyncio.to_thread(parts_of, settings, lambda: delivery, metrics)
        finally:
            if watching is not None:
                watching.cancel()


def _delivery(settings: Settings, lago: LagoClient, store: EventStore, metrics: Metrics) -> Delivery:
    policy = RetryPolicy(random.random)
    breaker = Breaker(policy, time.monotonic())
    metrics.watch_breaker(lambda: breaker.state)
    return Delivery(
        lago,
        batch_size=settings.batch_size,
        concurrency=asyncio.Semaphore(settings.worker_concurrency),
        breaker=breaker,
        policy=policy,
        clock=time.monotonic,
        sleep=asyncio.sleep,
        on_request=lambda _name, _status, _seconds: None,  # the client itself is observed
        resend_is_safe=store.resend_is_safe,
    )


def parts_from_environment() -> Parts:
    """The parts for `faust -A streams.app:<role>`: what a worker of ours has, without its metrics port."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    metrics = Metrics(CollectorRegistry(), version("meterbridge"))
    made: list[Delivery] = []
    watching: list[asyncio.Future[None]] = []

    def delivery() -> Delivery:
        if not made:
            key = settings.lago_api_key.get_secret_value() if settings.lago_api_key else ""
            http = lago_http(settings.lago_timeout, settings.worker_concurrency)
            lago = LagoClient(http, settings.lago_api_url, key, metrics.lago_requested)
            store = EventStore(lago, settings.lago_clickhouse_dedup)
            watching.append(asyncio.ensure_future(store.watch()))
            made.append(_delivery(settings, lago, store, metrics))
        return made[0]

    return parts_of(settings, delivery, metrics)
