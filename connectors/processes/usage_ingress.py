"""Composes the webhooks of one process: their credentials, the storage of calls, and the spool for times without Kafka."""

import time
from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import web

from connectors.config.connections import all_revealed
from connectors.config.settings import Settings
from connectors.http.client_address import ClientAddressPolicy
from connectors.http.rate_limit import SenderRateLimiter
from connectors.http.unauthenticated_limits import UnauthenticatedConnections
from connectors.ingest.auth import WebhookAuth, check_exposure
from connectors.ingest.call_context import ContextFields
from connectors.ingest.routes import IngressDeps, ingress_routes
from connectors.ingest.secret_strength import check_strength
from connectors.ingest.spool import Spool
from connectors.ingest.spooling_producer import KAFKA_S, SpooledSender, SpoolHooks
from connectors.ingest.store import ElementStore, RecordSender
from connectors.kafka.checked_producer import CheckedProducer
from connectors.telemetry.ingress_sensors import IngressSensors
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.tracing import Tracing
from schemas.topics import TopicNames
from streams.runtime.clock import now_us

_log = structlog.get_logger(__name__)


def checked_auth(settings: Settings) -> WebhookAuth:
    """Who may send usage. A process asks before it connects to anything, so that a wrong setting is its only complaint.

    Raises:
        ConfigurationError: the webhooks would accept any sender, or a credential is too short.
    """
    secrets, tokens = all_revealed(settings.webhook_secret), all_revealed(settings.webhook_token)
    auth = WebhookAuth(
        secrets, tokens, settings.webhook_tolerance, timestamp_required=settings.webhook_timestamp_required
    )
    check_strength("WEBHOOK_SECRET", secrets, settings.host)
    check_strength("WEBHOOK_TOKEN", tokens, settings.host)
    check_exposure(auth, allow_unauthenticated=settings.allow_unauthenticated)
    return auth


class WebhookIngress:
    """The ingress of one process.

    Args:
        spool: None = the webhooks answer 503 while Kafka does not answer.
        tracing: None = traces are off.

    Raises:
        ConfigurationError: the webhooks would accept any sender, or a credential is too short.
    """

    def __init__(
        self,
        settings: Settings,
        gate: CheckedProducer,
        spool: Spool | None,
        metrics: Metrics,
        unauthenticated: UnauthenticatedConnections,
        tracing: Tracing | None = None,
    ) -> None:
        self._traces = None if tracing is None else tracing.ingress
        self._unauthenticated = unauthenticated
        self._settings = settings
        self._gate = gate
        self._metrics = metrics
        self._topics = TopicNames.with_prefix(settings.topic_prefix)
        self._sensors = IngressSensors(metrics)
        self._auth = checked_auth(settings)
        if self._auth.is_open:
            _log.warning("webhooks_open_to_anybody", host=settings.host, setting="ALLOW_UNAUTHENTICATED")
        self._spooled = self._over(spool) if spool is not None else None

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of all kinds of senders."""
        settings, sensors = self._settings, self._sensors
        sender: RecordSender = self._spooled or self._gate
        if self._traces is not None:
            sender = self._traces.over(sender, self._topics.raw)
        deps = IngressDeps(
            store=ElementStore(
                sender, self._topics.raw, self._topics.rejected, settings.customer_id_fields, now_us, kept_by(settings)
            ),
            auth=self._auth,
            timeout_s=settings.webhook_timeout,
            max_body_bytes=settings.max_body_bytes,
            origins=ClientAddressPolicy(settings.webhook_allowed_ips, settings.trusted_proxies)
            if settings.webhook_allowed_ips
            else None,
            pace=SenderRateLimiter(settings.webhook_rate_limit, time.monotonic)
            if settings.webhook_rate_limit
            else None,
            on_request=sensors.requested,
            on_elements=sensors.elements,
            on_left_out=sensors.left_out,
            watch_bytes=self._metrics.body_bytes.set_function,
            is_guessing=self._unauthenticated.is_guessing,
        )
        routes = [_timed(route, self._metrics.request_seconds.observe) for route in ingress_routes(deps)]
        return routes if self._traces is None else [self._traces.of_route(route) for route in routes]

    def shut_because(self) -> str:
        """Return why no call can be stored; `""` = calls can be stored."""
        return self._gate.shut_because() if self._spooled is None else self._spooled.shut_because()

    async def work(self) -> None:
        """Drain the spool until cancelled. It returns at once if there is no spool.

        Raises:
            Unavailable: the producer has failed for good.
        """
        if self._spooled is not None:
            await self._spooled.drain()

    def _over(self, spool: Spool) -> SpooledSender:
        self._metrics.watch_spool(lambda: spool.records, lambda: spool.bytes, lambda: _age_s(spool.oldest_ms))
        self._metrics.spool_limit.set(self._settings.spool_max_bytes)
        hooks = SpoolHooks(
            on_spooled=self._metrics.spooled.inc,
            on_drained=self._metrics.drained.inc,
            on_rejected=self._sensors.elements,
        )
        return SpooledSender(self._gate, spool, self._topics.rejected, now_us, kafka_patience_s(self._settings), hooks)


def kept_by(settings: Settings) -> ContextFields:
    """Return the tags and metadata of a call that this deployment keeps."""
    return ContextFields(settings.kept_tag_prefixes, settings.kept_metadata)


def kafka_patience_s(settings: Settings) -> float:
    """Return how long a webhook waits for Kafka, seconds. With a spool it is short, because some senders wait only 5 s."""
    if settings.spool_path is None:
        return settings.webhook_timeout
    return min(KAFKA_S, settings.webhook_timeout / 2)


def _timed(route: web.RouteDef, observe: Callable[[float], None]) -> web.RouteDef:
    handler: Any = route.handler

    async def timed(request: web.Request) -> web.StreamResponse:
        started = time.perf_counter()
        try:
            return await handler(request)  # type: ignore[no-any-return]
        finally:
            observe(time.perf_counter() - started)

    return web.route(route.method, route.path, timed, **route.kwargs)


def _age_s(at_ms: int | None) -> float:
    return 0.0 if at_ms is None else max(0.0, now_us() / 1e6 - at_ms / 1e3)
