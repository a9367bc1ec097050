"""Composes the parts of a worker's role from the settings: connections, topic ids, Lago, metrics."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import version
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
from prometheus_client import CollectorRegistry

from connectors.config.addresses import lago_address
from connectors.config.connections import (
    kafka_connection,
    lago_connections,
    topic_layout,
)
from connectors.config.lago_connections import LagoConnection
from connectors.config.settings import Settings, load_settings
from connectors.kafka.admin import LIMIT_S, check_topics, topic_ids
from connectors.kafka.client_config import aiokafka_config, faust_broker
from connectors.kafka.errors import in_one
from connectors.kafka.faust_credentials import faust_credentials
from connectors.kafka.startup import KafkaWait, when_kafka_answers
from connectors.lago.client import LagoClient, lago_http
from connectors.lago.event_store import OrganizationInfo
from connectors.operations.partition_reports import PartitionReports, writer_to
from connectors.processes.certificates import watch_certificates
from connectors.telemetry.logs import configure_logging
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.metrics_server import start_metrics_server
from connectors.telemetry.tracing import Tracing, start_tracing
from connectors.telemetry.worker_sensors import WorkerSensors
from schemas.errors import TopicProblem
from schemas.organizations import DEFAULT
from schemas.topics import TopicNames
from streams.components import Components
from streams.core.delivery.backoff import RETRY_POSTS, RetryPolicy
from streams.core.delivery.circuit_breaker import Breaker
from streams.core.delivery.rate_limiter import AdaptiveRateLimiter
from streams.core.mapping.set_mapping import MIN_MAPPING_DELAY_S
from streams.delivery.engine import Delivery, LagoEventsApi
from streams.delivery.to_an_organization import ClosedOrganization, EventDelivery
from streams.runtime.cancellation import end
from streams.runtime.kept_up import kept_up
from streams.runtime.role import AnyRole, Role

if TYPE_CHECKING:
    from streams.agents.projector import Projection

#: For requests about Lago's organization, which then need not wait for a post to end.
SPARE_CONNECTIONS = 1
#: Age of the oldest table that a worker folds with, seconds. The bound is fixed, so that MAPPING_DELAY_SECONDS may be
#: raised on api and worker in any order.
FRESH_S = 5.0
#: Time limit for an answer of a broker that is asked repeatedly, seconds.
_ANSWER_S = 5.0
#: Time limit for background tasks to end, seconds.
_LAST_S = 1.0


def parts_of(
    settings: Settings,
    delivery: Callable[[], Delivery],
    metrics: Metrics,
    sensors: WorkerSensors | None = None,
    limit_s: float = LIMIT_S,
    organizations: Mapping[str, Callable[[], EventDelivery]] | None = None,
    closing: AsyncExitStack | None = None,
) -> Components:
    """Make a role's parts. This asks the broker for the topics' ids and settings, at most `limit_s` seconds for each
    answer.

    `closing`: closes what the parts open, at the end of the role; None = the process ends with the role.

    Raises:
        Unavailable: the broker does not answer.
        TopicProblem: `topics`: a sentence for each topic that is missing or wrong. Without this check Faust would wait
            for the topic without end and ignore SIGTERM.
    """
    kafka = kafka_connection(settings)
    wrong = check_topics(kafka, topic_layout(settings), limit_s, to_start=True)
    if wrong:
        raise TopicProblem("topics", in_one(wrong))
    topics = TopicNames.with_prefix(settings.topic_prefix)
    return Components(
        kafka=aiokafka_config(kafka),
        broker=faust_broker(kafka),
        credentials=faust_credentials(kafka),
        topics=topics,
        group_prefix=f"{settings.topic_prefix}{settings.deployment_name}-",
        partitions=settings.kafka_partitions,
        topic_ids=topic_ids(kafka, [topics.raw, *topics.projected], limit_s),
        policy=settings.meter_policy(),
        mapping_delay_s=fresh_s(settings),
        held_in_memory=settings.held_in_memory,
        max_retries=settings.max_retries,
        retry_delay_s=settings.retry_delay,
        delivery=delivery,
        organizations={**dict.fromkeys(settings.closed_organizations, ClosedOrganization), **(organizations or {})},
        sensors=sensors or WorkerSensors(metrics, time.monotonic),
        instance_id=settings.pod_name or "",
        projection=cache(partial(_projection, settings, closing or AsyncExitStack())),
    )


@cache
def product_version() -> str:
    """Return the installed version of the product. The lookup takes 1 MiB of memory, so it is done before processes are
    forked.
    """
    return version("meterbridge")


def _projection(settings: Settings, closing: AsyncExitStack) -> "Projection":
    from connectors.processes.projector_tasks import projection

    return projection(settings, closing)


def fresh_s(settings: Settings) -> float:
    """Return the maximum age of a table that a worker folds with, seconds: at most the lead with which mappings are
    announced, if the api has the same setting, or any of 5 s and more.
    """
    return min(max(settings.mapping_delay_seconds, MIN_MAPPING_DELAY_S), FRESH_S)


def partition_reports_of(parts: Components, role: str, running: AnyRole) -> PartitionReports:
    """Return the task that reports which partitions stand still, beside any role."""
    sensors: Any = parts.sensors
    topic = running.topic if isinstance(running, Role) else ""
    write = writer_to(parts.kafka, parts.topics.deliveries)
    return PartitionReports(role, running.partition_tasks, topic, sensors.health.halts, write)


@asynccontextmanager
async def worker_parts(settings: Settings, role: str, awaited: KafkaWait | None = None) -> AsyncIterator[Components]:
    """Yield the parts of one role, when Kafka answers. Its metrics are served and its Lago client is open until the
    exit.
    """
    metrics = Metrics(CollectorRegistry(), product_version())
    metrics.has_roles(role)
    watch_certificates(settings, metrics)
    sensors = WorkerSensors(metrics, time.monotonic)
    async with AsyncExitStack() as stack:
        _meanwhile(stack, "heartbeat", sensors.health.keep_beating)
        if settings.metrics_port:
            served = start_metrics_server(
                metrics.registry, settings.host, settings.metrics_port, metrics.connection_closed, sensors.health
            )
            stack.push_async_callback(asyncio.to_thread, served.stop)
        tracing = None if role == "project" else start_tracing(settings.tracing(role), metrics.spans)
        if tracing is not None:
            stack.push_async_callback(tracing.close)
        deliveries: dict[str, Callable[[], Delivery]] = {}
        for connection in lago_connections(settings):
            connections = connection.concurrency + SPARE_CONNECTIONS
            http = await stack.enter_async_context(lago_http(connection.timeout_s, connections))
            traced = (
                None
                if tracing is None
                else _Traced(tracing, f"{settings.topic_prefix}{settings.deployment_name}-{role}")
            )
            made, tenant = _delivery(connection, settings.batch_size, http, metrics, traced, in_retry=role == "retry")
            deliveries[connection.organization] = lambda made=made: made  # type: ignore[misc]
            if role in ("sink", "retry"):
                _meanwhile(stack, "watch_lago", tenant.watch)
        own = deliveries.pop(DEFAULT)
        asking = partial(parts_of, settings, own, metrics, sensors, _ANSWER_S, deliveries, stack)
        parts = await when_kafka_answers(asking, awaited or KafkaWait(settings.kafka_bootstrap_servers))
        _meanwhile(stack, "minute_summary", sensors.minute.log_every)
        if role == "meter" and settings.map_by_identity:
            from connectors.processes.identity_parts import map_by_identity

            _meanwhile(stack, "map_by_identity", await map_by_identity(stack, settings, metrics, sensors))
        sensors.health.begun()
        yield parts if tracing is None else replace(parts, traces=tracing.of_role(parts.topics, parts.group(role)))


def _meanwhile(stack: AsyncExitStack, name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Keep `work` up in a task until the stack is closed. It may then write its last log line."""
    task = asyncio.ensure_future(kept_up(name, work))

    stack.push_async_callback(end, {task}, _LAST_S)


class _Traced(NamedTuple):
    """How posts are traced: into what, and as which consumer group."""

    tracing: Tracing
    group: str


def _delivery(
    connection: LagoConnection,
    batch_size: int,
    http: httpx.AsyncClient,
    metrics: Metrics,
    traced: _Traced | None = None,
    *,
    in_retry: bool = False,
) -> tuple[Delivery, OrganizationInfo]:
    """Return the delivery to one Lago organisation, and what is known of that organisation, which is to be watched."""
    posts, looks = AdaptiveRateLimiter(connection.per_second or inf), AdaptiveRateLimiter()

    def heard(name: str, status: int, headers: Mapping[str, str]) -> None:
        if name == "get_event":  # delivery itself reads the headers of its posts
            looks.observe(status, headers, time.monotonic())

    requested, organization = metrics.requested_of(connection.organization), connection.organization
    lago = LagoClient(http, connection.url, connection.key, requested, heard, organization=organization)
    tenant = OrganizationInfo(lago, connection.clickhouse_dedup)
    policy = RetryPolicy(random.random, alone_after=RETRY_POSTS) if in_retry else RetryPolicy(random.random)
    breaker = Breaker(policy, time.monotonic())
    poster: LagoEventsApi = lago
    if traced is not None:
        poster = traced.tracing.over_lago(lago, connection.url, traced.group)
        http.event_hooks = {"request": [traced.tracing.request_hook()]}
    if connection.is_default:
        metrics.watch_breaker(lambda: breaker.state)
        metrics.watch_lago(tenant.resend_is_safe, tenant.too_old, lambda: posts.limit)
    else:
        metrics.watch_organization(organization, lambda: breaker.state)
    delivery = Delivery(
        poster,
        batch_size=batch_size,
        concurrency=asyncio.Semaphore(connection.concurrency),
        breaker=breaker,
        policy=policy,
        clock=time.monotonic,
        sleep=asyncio.sleep,
        on_request=lambda _name, _verb, _status, _seconds: None,  # the client itself is observed
        resend_is_safe=tenant.resend_is_safe,
        batches_are_whole=lambda: not tenant.too_old(),
        posts=posts,
        looks=looks,
        log_fields={"address": lago_address(connection.url)}
        | ({} if connection.is_default else {"organization": organization}),
    )
    return delivery, tenant


def parts_from_environment() -> Components:
    """Return the parts for Faust's own command (connectors/processes/faust_apps.py): those of a worker, without a
    metrics port.
    """
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    metrics = Metrics(CollectorRegistry(), product_version())
    watching: list[asyncio.Future[Any]] = []  # the event loop alone would not keep the task

    @cache
    def delivery(connection: LagoConnection) -> Delivery:
        http = lago_http(connection.timeout_s, connection.concurrency + SPARE_CONNECTIONS)
        made, tenant = _delivery(connection, settings.batch_size, http, metrics)
        watching.append(asyncio.ensure_future(kept_up("watch_lago", tenant.watch)))
        return made

    own, *others = lago_connections(settings)
    organizations = {one.organization: partial(delivery, one) for one in others}
    return parts_of(settings, partial(delivery, own), metrics, organizations=organizations)
