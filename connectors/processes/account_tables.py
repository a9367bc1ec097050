"""The tables of customers and orgs, and their writers, of one API process or one command."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from connectors.billing.mapping_retention import MappingRetention
from connectors.billing.mappings import Mappings
from connectors.billing.metered_events import UsageSink
from connectors.billing.org_billing import OrgBilling
from connectors.billing.org_records import OrgRecords, StoredIds
from connectors.billing.organizations import Organizations
from connectors.billing.routed_discovery import RoutedDiscovery
from connectors.billing.subscription_discovery import SubscriptionDiscovery
from connectors.config.connections import kafka_connection
from connectors.config.settings import Settings
from connectors.kafka.client_config import aiokafka_config
from connectors.kafka.compacted_writer import CompactedTopicWriter
from connectors.lago.client import LagoClient
from schemas.customers import CustomerRecord
from schemas.moments import HOUR_US, SECOND_US
from schemas.organizations import DEFAULT, org_key
from schemas.topics import TopicNames
from streams.core.delivery.canary import canary_name
from streams.core.mapping.set_mapping import KEEP_US, MIN_MAPPING_DELAY_S
from streams.runtime.clock import now_us
from streams.runtime.compacted_table import CompactedTable
from streams.state.orgs_table import OrgsTable


class AccountTables:
    """The tables of the two topics, their writers, which take turns with the writers of other processes
    (docs/adr/0012), and Lago.

    Args:
        usage: makes the sink of recorded usage; the sink tells the discovery that it gets for which orgs usage is
            recorded.
        others: clients of the further Lago organisations, by their names.

    Attributes:
        lago, billing: of the default organisation.
        lagos, billings: of each organisation by its name, the default one first.
        mapping_delay_us: time from a change of a mapping until it applies, microseconds.
    """

    def __init__(
        self,
        settings: Settings,
        lago: LagoClient,
        usage: Callable[[RoutedDiscovery], UsageSink],
        others: Mapping[str, LagoClient] | None = None,
    ) -> None:
        kafka, topics = aiokafka_config(kafka_connection(settings)), TopicNames.with_prefix(settings.topic_prefix)
        self.lago = lago
        self.lagos: dict[str, LagoClient] = {DEFAULT: lago, **(others or {})}
        self.customers = CompactedTable(kafka, topics.customers, CustomerRecord, time.monotonic, "customers")
        self.orgs = OrgsTable(kafka, topics.orgs, time.monotonic)
        names = [name for name in self.lagos if name]
        known = self.orgs.organizations
        known.update(names, settings.closed_organizations)
        self.org_records = OrgRecords(self.orgs, kafka, topics.orgs, now_us=now_us, organizations=known)
        self.organizations = Organizations(self.org_records, names, settings.lago_organization_names, known)
        self._customer_records = CompactedTopicWriter(self.customers, kafka, topics.customers)
        discoveries = {
            name: SubscriptionDiscovery(
                self.customers.table,
                self.orgs.table,
                self.org_records,
                client,
                now_us=now_us,
                is_mine=partial(self.organizations.is_in, name),
            )
            for name, client in self.lagos.items()
        }
        self.discovery = RoutedDiscovery(discoveries, self.organizations.of)
        recorded = usage(self.discovery)
        self.billings = {
            name: OrgBilling(
                client,
                StoredIds(self.org_records),
                recorded,
                now_us=now_us,
                prefixes=[org_key(name, prefix) for prefix in settings.org_id_prefixes],
                template=settings.subscription_id_template,
            )
            for name, client in self.lagos.items()
        }
        self.billing = self.billings[DEFAULT]
        # A table may be a second old, even with a shorter setting (connectors/processes/worker_parts.py).
        self.mapping_delay_us = round(max(settings.mapping_delay_seconds, MIN_MAPPING_DELAY_S) * SECOND_US)
        self.mappings = Mappings(
            self.customers,
            self.orgs,
            self._customer_records,
            self.discovery,
            mapping_delay_us=self.mapping_delay_us,
            keep_us=max(KEEP_US, (settings.dedupe_retention_hours + 1) * HOUR_US),
            now_us=now_us,
            event_code=settings.lago_event_code,
            canary=canary_name(settings.deployment_name),
            placed=self.organizations.placed,
        )
        self.forgetting = MappingRetention(self.customers.table, self._customer_records, lago.customer, now_us)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Follow the tables while the context is entered. They are complete only after a while."""
        async with AsyncExitStack() as stack:
            for end in (self.customers.stop, self.orgs.stop, self.org_records.close, self._customer_records.close):
                stack.push_async_callback(end)
            self.customers.begin()
            self.orgs.begin()
            yield
