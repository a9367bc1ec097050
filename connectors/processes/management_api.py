"""Composes the management API of one process: its tables, writers, endpoints and background tasks."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from aiohttp import web

from connectors.api.analytics import AnalyticsHandlers
from connectors.api.billing_endpoints import billing_endpoints_of_all
from connectors.api.dead_letters import DeadLetterHandlers
from connectors.api.event_totals import totals_endpoint
from connectors.api.held_usage import HeldUsageHandlers
from connectors.api.lago_webhooks import LagoWebhooks, WebhookSender
from connectors.api.mapping_import import import_endpoint
from connectors.api.mappings import MappingHandlers
from connectors.api.openapi.routes import openapi_routes
from connectors.api.pipeline_counts import PipelineCountsHandlers
from connectors.api.power_levels import PowerLevelHandlers
from connectors.api.provider_health import ProviderHealthHandlers
from connectors.billing.auto_subscribe import AutoSubscriber
from connectors.billing.event_state_reader import ReceiptsFollower
from connectors.billing.identity_mapping import IdentityMappings
from connectors.billing.lago_webhooks import WebhookHandlers
from connectors.billing.mapping_pages import MappingPages
from connectors.billing.org_sync import POLL_EVERY_S, OrgSynchroniser
from connectors.billing.rejected_usage import RejectedFollower
from connectors.billing.unbillable_events import UnbillableEvents
from connectors.billing.usage_limits import RecordLimits
from connectors.billing.usage_recorder import KafkaUsage
from connectors.config.connections import deployment_of, kafka_connection, lago_connections, needed
from connectors.config.settings import Settings
from connectors.http.endpoint import Endpoint, endpoints_of, routes_of
from connectors.kafka.checked_producer import CheckedProducer
from connectors.kafka.client_config import aiokafka_config
from connectors.lago.client import LagoClient
from connectors.library.orgs import serve_with
from connectors.operations.dead_letter_service import DeadLetterService
from connectors.operations.held_usage import UnmappedUsage
from connectors.operations.pipeline_counts import PipelineCounts
from connectors.processes.account_tables import AccountTables
from connectors.processes.api_access import ApiAccess
from connectors.processes.api_databases import api_databases
from connectors.processes.credits_api import CreditsApi
from connectors.processes.queue_watch import QueueWatch
from connectors.telemetry.metrics import Metrics
from schemas.organizations import DEFAULT, org_key
from schemas.topics import TopicNames
from streams.runtime.clock import now_us, utc_now
from streams.runtime.kept_up import kept_up

_SHOW_EVERY_S = 5.0
_FORGET_EVERY_S = 3600.0


def org_synchroniser(settings: Settings, tables: AccountTables, organization: str = DEFAULT) -> OrgSynchroniser:
    """Return the object that keeps the records of an organisation's orgs equal to Lago: its webhooks as they come, and
    a poll for those that were lost.
    """
    prefixes = tuple(org_key(organization, prefix) for prefix in settings.org_id_prefixes)
    return OrgSynchroniser(
        tables.customers.table,
        tables.orgs.table,
        tables.org_records,
        tables.lagos[organization],
        now_us=now_us,
        is_org=lambda org_id: org_id.startswith(prefixes),
        is_mine=partial(tables.organizations.is_in, organization),
    )


class Management:
    """The management API of one process."""

    def __init__(
        self, settings: Settings, gate: CheckedProducer, lagos: Mapping[str, LagoClient], metrics: Metrics
    ) -> None:
        kafka, topics = aiokafka_config(kafka_connection(settings)), TopicNames.with_prefix(settings.topic_prefix)
        self._metrics, self._settings = metrics, settings
        self._receipts = ReceiptsFollower(kafka, topics.receipts, time.monotonic)
        self._rejected = RejectedFollower(kafka, topics.rejected, time.monotonic)
        self._databases = api_databases(settings, metrics)
        deployment = deployment_of(settings)
        database = None if self._databases is None else self._databases.management
        self._dead_letters, self._held_usage = DeadLetterService(deployment, database), UnmappedUsage(database)
        self._pipeline_counts = PipelineCounts(deployment, settings.held_in_memory, self._receipts, self._rejected)
        self.account_tables = AccountTables(
            settings,
            lagos[DEFAULT],
            lambda discovery: KafkaUsage(gate, topics.raw, now_us=now_us, named=discovery.named),
            {name: lago for name, lago in lagos.items() if name},
        )
        if settings.auto_subscribe:
            for name, lago in lagos.items():
                subscriber = AutoSubscriber(lago, self.account_tables.billings[name])
                self.account_tables.discovery.subscribe_by(name, subscriber)
        self._event_code = settings.lago_event_code
        self._synchronisers = {name: org_synchroniser(settings, self.account_tables, name) for name in lagos}
        refusals = UnbillableEvents(self._receipts, gate, topics.receipts, metrics.not_billed, now_us)
        self._webhooks = LagoWebhooks(
            [
                WebhookSender(
                    WebhookHandlers(self._synchronisers[one.organization], refusals, lagos[one.organization].named),
                    one.webhook_secrets,
                )
                for one in lago_connections(settings)
            ],
            gate,
            topics.deliveries,
            metrics.lago_response_seen,
            now_us,
        )
        self._entrance = ApiAccess(settings, gate, metrics, self._databases)
        self.authorizer = self._entrance.authorizer
        self._credits = CreditsApi(settings, metrics, self._databases)
        self._queues = QueueWatch(settings, metrics)
        self._issuer = settings.oidc_issuer or ""
        for follower in (self.account_tables.customers, self.account_tables.orgs):
            metrics.watch_table(follower.name, follower.lag_s)
        metrics.watch_table("receipts", self._receipts.lag_s)
        metrics.watch_table("rejected", self._rejected.lag_s)

    def endpoints(self) -> list[Endpoint]:
        """Return the endpoints of the management API. They answer 503 until the tables are read."""
        tables = self.account_tables
        return [
            totals_endpoint(tables.mappings.count_active, self._receipts.totals),
            *self._entrance.endpoints(),
            *self._credits.endpoints(),
            *endpoints_of(PowerLevelHandlers(lambda: needed(self._databases, self._settings).management)),
            *endpoints_of(ProviderHealthHandlers(lambda: needed(self._databases, self._settings).management)),
            *endpoints_of(AnalyticsHandlers(lambda: needed(self._databases, self._settings).slow, utc_now)),
            *endpoints_of(DeadLetterHandlers(self._dead_letters)),
            *endpoints_of(PipelineCountsHandlers(self._pipeline_counts)),
            *endpoints_of(HeldUsageHandlers(self._held_usage)),
            *self._webhooks.endpoints(),
            *endpoints_of(MappingHandlers(tables.mappings, MappingPages(tables.mappings, tables.customers))),
            import_endpoint(tables.mappings),
            *billing_endpoints_of_all(
                tables.billings,
                tables.organizations.of,
                tables.org_records,
                self._event_code,
                IdentityMappings(tables.mappings),
                now_us=now_us,
            ),
        ]

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the endpoints behind the authorizer, and of the OpenAPI document."""
        endpoints = self.endpoints()
        return [*routes_of(endpoints, self.authorizer), *openapi_routes(endpoints, self._issuer)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read the tables on entry and follow them inside. Receipts and rejected calls are read in the background."""
        async with AsyncExitStack() as stack:
            if self._databases is not None:
                stack.callback(self._databases.terminate)
            serve_with(
                self.account_tables.billing, RecordLimits(self.account_tables.org_records), tokens_code=self._event_code
            )
            stack.callback(serve_with, None)
            for follower in (self._receipts, self._rejected):
                stack.push_async_callback(follower.stop)
                follower.begin()
            await stack.enter_async_context(self.account_tables.open())
            await asyncio.gather(self.account_tables.customers.start(), self.account_tables.orgs.start())
            await stack.enter_async_context(self._entrance.open())
            await stack.enter_async_context(self._credits.open())
            yield

    async def work(self, learn_every_s: float) -> None:
        """Run the background tasks until cancelled. Args: learn_every_s: period of subscription discovery, seconds."""
        works: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("learn_orgs", lambda: self.account_tables.discovery.learn_every(learn_every_s)),
            ("forget_customers", lambda: self.account_tables.forgetting.work(_FORGET_EVERY_S)),
            ("show_totals", self._show),
            *(("poll_orgs", partial(one.poll_every, POLL_EVERY_S)) for one in self._synchronisers.values()),
            ("write_access", self._entrance.work),
            ("watch_queues", self._queues.work),
        ]
        async with asyncio.TaskGroup() as group:
            for name, work in works:
                group.create_task(kept_up(name, work))

    async def _show(self) -> None:
        """Set the metrics of totals until cancelled."""
        while True:
            self._metrics.active_customers.set(await self.account_tables.mappings.active_customers())
            if (totals := self._receipts.totals()) is not None:
                self._metrics.pending_events.set(totals.pending_events)
            await asyncio.sleep(_SHOW_EVERY_S)
