"""What stands behind the management API: the tables it follows, the mappings it writes, the totals it counts."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from aiohttp import web

from connectors.access.entrance import Entrance
from connectors.customers.mappings import Mappings
from connectors.customers.pages import MappingPages
from connectors.desk import Desk
from connectors.http.api.endpoints import Endpoint, routes_of
from connectors.http.api.letters import letter_endpoints
from connectors.http.api.mapping import mapping_endpoints
from connectors.http.api.mapping_import import import_endpoint
from connectors.http.api.telling import telling_routes
from connectors.http.api.totals import totals_endpoint
from connectors.kafka.gate import Gate
from connectors.kafka.security import aiokafka_config
from connectors.kafka.shared_records import SharedRecords
from connectors.lago.client import LagoClient
from connectors.lago.limits import RecordLimits
from connectors.lago.org_billing import OrgBilling
from connectors.lago.orgs import serve_with
from connectors.metrics import Metrics
from connectors.orgs.api import billing_endpoints
from connectors.orgs.auto_subscribe import AutoSubscriber
from connectors.orgs.lago_watch import LagoWatch
from connectors.orgs.learning import OrgLearner
from connectors.orgs.records import OrgRecords, StoredIds
from connectors.orgs.usage_sink import KafkaUsage
from connectors.receipts import ReceiptsFollower
from connectors.rejected import RejectedFollower
from connectors.settings import Settings
from schemas.customers import CustomerRecord, OrgRecord
from schemas.moments import HOUR_US, SECOND_US
from schemas.topics import TopicNames
from streams.core.remap import KEEP_US
from streams.followers import Follower

#: How often Lago is asked about mapped orgs without a subscription.
LEARN_EVERY_S = 15.0
_SHOW_EVERY_S = 5.0
_FORGET_EVERY_S = 3600.0

_log = structlog.get_logger(__name__)


class Management:
    """The management API of one process."""

    def __init__(self, settings: Settings, gate: Gate, lago: LagoClient, metrics: Metrics) -> None:
        kafka, topics = aiokafka_config(settings), TopicNames.with_prefix(settings.topic_prefix)
        self._metrics = metrics
        self._customers = Follower(kafka, topics.customers, CustomerRecord, time.monotonic, "customers")
        self._orgs = Follower(kafka, topics.orgs, OrgRecord, time.monotonic, "orgs")
        self.org_records = OrgRecords(self._orgs, kafka, topics.orgs, now_us=now_us)
        self._receipts = ReceiptsFollower(kafka, topics.receipts, time.monotonic)
        self._rejected = RejectedFollower(kafka, topics.rejected, time.monotonic)
        self._desk = Desk(settings, self._receipts, self._rejected)
        self._customer_records = SharedRecords(self._customers, kafka, topics.customers)
        self._learner = OrgLearner(self._customers.table, self._orgs.table, self.org_records, lago, now_us=now_us)
        self.billing = OrgBilling(
            lago,
            StoredIds(self.org_records),
            KafkaUsage(gate, topics.raw, now_us=now_us, named=self._learner.named),
            now_us=now_us,
            prefixes=settings.org_id_prefixes,
            template=settings.subscription_id_template,
        )
        if settings.auto_subscribe:
            self._learner.subscribe_by(AutoSubscriber(lago, self.billing))
        self._mappings = Mappings(
            self._customers,
            self._orgs,
            self._customer_records,
            self._learner,
            # Tables may be a second old whatever the setting says (connectors/wiring.py).
            lead_us=round(max(settings.mapping_lead_seconds, 1.0) * SECOND_US),
            keep_us=max(KEEP_US, (settings.dedupe_horizon_hours + 1) * HOUR_US),
            now_us=now_us,
        )
        self._event_code = settings.lago_event_code
        self._lago_watch = LagoWatch(
            *(settings, gate, lago, metrics, self._customers, self._orgs, self.org_records, self._receipts, now_us)
        )
        self._entrance = Entrance(settings, gate)
        self.doorman = self._entrance.doorman
        self._issuer = settings.oidc_issuer or ""
        for follower in (self._customers, self._orgs):
            metrics.watch_follower(follower.name, follower.lag_s)
        metrics.watch_follower("receipts", self._receipts.lag_s)
        metrics.watch_follower("rejected", self._rejected.lag_s)

    def endpoints(self) -> list[Endpoint]:
        """The management API; it answers 503 until the tables are read."""
        return [
            totals_endpoint(self._mappings.active_customers, self._receipts.totals),
            *self._entrance.endpoints(),
            *letter_endpoints(self._desk),
            *self._lago_watch.endpoints(),
            *mapping_endpoints(self._mappings, MappingPages(self._mappings, self._customers)),
            import_endpoint(self._mappings),
            *billing_endpoints(self.billing, self.org_records, self._event_code, now_us=now_us),
        ]

    def routes(self) -> list[web.RouteDef]:
        """The endpoints behind the doorman."""
        endpoints = self.endpoints()
        return [*routes_of(endpoints, self.doorman), *telling_routes(endpoints, self._issuer)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tables are read on entry and followed inside; the receipts are read meanwhile."""
        async with AsyncExitStack() as stack:
            stack.callback(self._desk.close)
            serve_with(self.billing, RecordLimits(self.org_records), tokens_code=self._event_code)
            stack.callback(serve_with, None)
            stack.push_async_callback(self.org_records.close)
            stack.push_async_callback(self._customer_records.close)
            for follower in (self._receipts, self._rejected, self._customers, self._orgs):
                stack.push_async_callback(follower.stop)
            self._receipts.begin()
            self._rejected.begin()
            await asyncio.gather(self._customers.start(), self._orgs.start())
            await stack.enter_async_context(self._entrance.open())
            yield

    async def work(self, learn_every_s: float) -> None:
        """What the API does by itself, for ever: learn of subscriptions, show totals as metrics."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._learner.learn_every(learn_every_s))
            group.create_task(self._mappings.forget_every(_FORGET_EVERY_S))
            group.create_task(self._show())
            group.create_task(self._lago_watch.work())
            group.create_task(self._entrance.work())

    async def _show(self) -> None:
        """In the event loop: the tables must not change under whoever counts them."""
        while True:
            self._metrics.active_customers.set(self._mappings.active_customers())
            if (totals := self._receipts.totals()) is not None:
                self._metrics.pending_events.set(totals.pending_events)
            await asyncio.sleep(_SHOW_EVERY_S)


def now_us() -> int:
    """The wall clock: microseconds since 1970 UTC."""
    return time.time_ns() // 1000
