"""What stands behind the management API: the tables it follows, the mappings it writes, the totals it counts."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from aiohttp import web

from connectors.desk import Desk
from connectors.http.api import api_routes
from connectors.http.auth import WebhookAuth
from connectors.http.letters import letter_routes
from connectors.kafka.gate import Gate
from connectors.kafka.security import aiokafka_config
from connectors.lago.client import LagoClient
from connectors.mappings import Mappings
from connectors.metrics import Metrics
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

_log = structlog.get_logger(__name__)


class Management:
    """The management API of one process."""

    def __init__(self, settings: Settings, gate: Gate, lago: LagoClient, metrics: Metrics) -> None:
        kafka, topics = aiokafka_config(settings), TopicNames.with_prefix(settings.topic_prefix)
        self._metrics = metrics
        self._customers = Follower(kafka, topics.customers, CustomerRecord, time.monotonic, "customers")
        self._orgs = Follower(kafka, topics.orgs, OrgRecord, time.monotonic, "orgs")
        self._receipts = ReceiptsFollower(kafka, topics.receipts, time.monotonic)
        self._rejected = RejectedFollower(kafka, topics.rejected, time.monotonic)
        self._desk = Desk(settings, self._receipts, self._rejected)
        self._mappings = Mappings(
            self._customers,
            self._orgs,
            gate,
            lago,
            topics,
            # Tables may be a second old whatever the setting says (connectors/wiring.py).
            lead_us=round(max(settings.mapping_lead_seconds, 1.0) * SECOND_US),
            keep_us=max(KEEP_US, (settings.dedupe_horizon_hours + 1) * HOUR_US),
            now_us=now_us,
        )
        master_key = settings.litellm_master_key
        self._auth = WebhookAuth(tokens=[master_key.get_secret_value()] if master_key is not None else [])
        if self._auth.is_open:
            _log.warning(
                "management_closed", detail="LITELLM_MASTER_KEY is not set: /customers answers 401 to everybody"
            )
        for follower in (self._customers, self._orgs):
            metrics.watch_follower(follower.name, follower.lag_s)
        metrics.watch_follower("receipts", self._receipts.lag_s)
        metrics.watch_follower("rejected", self._rejected.lag_s)

    def routes(self) -> list[web.RouteDef]:
        """The management routes; they answer 503 until the tables are read."""
        letters = letter_routes(self._desk, self._auth)
        return [*api_routes(self._mappings, self._auth, self._receipts.totals), *letters]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tables are read on entry and followed inside; the receipts are read meanwhile."""
        async with AsyncExitStack() as stack:
            stack.callback(self._desk.close)
            for follower in (self._receipts, self._rejected, self._customers, self._orgs):
                stack.push_async_callback(follower.stop)
            self._receipts.begin()
            self._rejected.begin()
            await asyncio.gather(self._customers.start(), self._orgs.start())
            yield

    async def work(self, learn_every_s: float) -> None:
        """What the API does by itself, for ever: learn of subscriptions, show totals as metrics."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._mappings.learn_orgs_every(learn_every_s))
            group.create_task(self._show())

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
