"""The writers of the management API in a command's own process: they and the API's take turns (docs/adr/0012)."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from connectors.customers.mappings import Mappings
from connectors.kafka.admin import check_topics
from connectors.kafka.security import aiokafka_config
from connectors.kafka.shared_records import SharedRecords
from connectors.lago.client import LagoClient, lago_http
from connectors.lago.metered import InMemoryUsage
from connectors.lago.org_billing import OrgBilling
from connectors.orgs.learning import OrgLearner
from connectors.orgs.records import OrgRecords, StoredIds
from connectors.settings import Settings
from schemas.customers import CustomerRecord, OrgRecord
from schemas.errors import TopicProblem
from schemas.moments import HOUR_US, SECOND_US
from schemas.topics import TopicNames
from streams.core.remap import KEEP_US
from streams.followers import Follower


@dataclass(frozen=True, slots=True)
class Writers:
    """What changes mappings, and customers and subscriptions in Lago.

    Fields:
        customers: the view that `mappings` reads.
        lead_us: how far ahead a changed mapping applies, microseconds.
    """

    mappings: Mappings
    lago: LagoClient
    billing: OrgBilling
    learner: OrgLearner
    customers: Mapping[str, CustomerRecord]
    lead_us: int


@asynccontextmanager
async def writers(settings: Settings, connections: int) -> AsyncIterator[Writers]:
    """Ready on entry; `connections`: to Lago.

    Raises:
        TopicProblem: `topics`: they are missing or wrong.
        Unavailable: Kafka does not answer.
    """
    if complaints := await asyncio.to_thread(check_topics, settings):
        raise TopicProblem("topics", " ".join(complaints))
    kafka, topics = aiokafka_config(settings), TopicNames.with_prefix(settings.topic_prefix)
    customers = Follower(kafka, topics.customers, CustomerRecord, time.monotonic, "customers")
    orgs = Follower(kafka, topics.orgs, OrgRecord, time.monotonic, "orgs")
    org_records = OrgRecords(orgs, kafka, topics.orgs, now_us=now_us)
    customer_records = SharedRecords(customers, kafka, topics.customers)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(lago_http(settings.lago_timeout, connections))
        key = settings.lago_api_key
        lago = LagoClient(http, settings.lago_api_url, key.get_secret_value() if key is not None else "")
        for end in (customers.stop, orgs.stop, org_records.close, customer_records.close):
            stack.push_async_callback(end)
        learner = OrgLearner(customers.table, orgs.table, org_records, lago, now_us=now_us)
        lead_us = round(max(settings.mapping_lead_seconds, 1.0) * SECOND_US)
        mappings = Mappings(
            customers,
            orgs,
            customer_records,
            learner,
            lead_us=lead_us,
            keep_us=max(KEEP_US, (settings.dedupe_horizon_hours + 1) * HOUR_US),
            now_us=now_us,
        )
        billing = OrgBilling(
            lago,
            StoredIds(org_records),
            InMemoryUsage(),  # nothing is recorded by a command
            now_us=now_us,
            prefixes=settings.org_id_prefixes,
            template=settings.subscription_id_template,
        )
        customers.begin()
        orgs.begin()
        await mappings.ready()
        yield Writers(mappings, lago, billing, learner, customers.table, lead_us)


def now_us() -> int:
    """The wall clock: microseconds since 1970 UTC."""
    return time.time_ns() // 1000
