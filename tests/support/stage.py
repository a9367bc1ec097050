"""Topics of one test, and roles run in this process against them."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from connectors.config.connections import deployment_of
from connectors.config.settings import Settings, load_settings
from connectors.kafka.admin import create_topics, topic_ids
from connectors.kafka.client_config import aiokafka_config, faust_broker
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.moments import SECOND_US
from schemas.policy import MeterPolicy
from schemas.records import Receipt
from schemas.topics import TopicNames
from streams.app import ROLES
from streams.components import Components
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes
from streams.delivery.engine import Delivery
from streams.runtime.role import Role
from streams.runtime.run import run_role
from tests.support.calls import Raw
from tests.support.eventually import PATIENCE
from tests.support.values import topics_of

#: Short windows, so that a test need not wait a minute.
QUICK = MeterPolicy(window_us=SECOND_US, grace_us=SECOND_US // 5, quiet_us=SECOND_US // 2)


@dataclass
class RecordedSensors:
    """Metrics that a test can read."""

    halted: list[tuple[str, int, str]] = field(default_factory=list)
    resumed: list[tuple[str, int, str]] = field(default_factory=list)
    missing: int = 0
    shifted: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    receipts: list[Receipt] = field(default_factory=list)
    routes: list[tuple[str, str, str]] = field(default_factory=list)

    def folded(self, partition: int, changes: Changes, seconds: float) -> None:
        for decision, number in changes.decisions.items():
            self.calls[decision] = self.calls.get(decision, 0) + number

    def sealed(self, changes: Changes) -> None:
        self.shifted += changes.shifted

    def ledger(self, partition: int, ledger: LedgerState | None) -> None: ...

    def two_routes(self, customer_id: str, one: str, other: str) -> None:
        self.routes.append((customer_id, one, other))

    def straddled(self, windows: int) -> None: ...

    def settled(self, receipts: Sequence[Receipt]) -> None:
        self.receipts += receipts

    def partition_halted(self, topic: str, partition: int, reason: str) -> None:
        self.halted.append((topic, partition, reason))

    def partition_resumed(self, topic: str, partition: int, reason: str) -> None:
        self.resumed.append((topic, partition, reason))

    def following(self, table: str, lag_s: Callable[[], float]) -> None: ...

    def fetch_gap(self, topic: str, partition: int, gaps: int) -> None:
        self.missing += gaps

    def lane_waits(
        self, organization: str, topic: str, partition: int, oldest_ms: Callable[[], int | None] | None
    ) -> None: ...


class Stage:
    """A part of a broker for one test."""

    def __init__(self, bootstrap: str, prefix: str, partitions: int = 2) -> None:
        self.settings: Settings = load_settings(
            {
                "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
                "TOPIC_PREFIX": prefix,
                "KAFKA_PARTITIONS": str(partitions),
                "PATH": os.environ.get("PATH", ""),
            }
        )
        self.connection, layout = topics_of(self.settings)
        self.deployment = deployment_of(self.settings)
        create_topics(self.connection, layout)
        self.topics = TopicNames.with_prefix(prefix)
        self.sensors = RecordedSensors()
        self.kafka = aiokafka_config(self.connection)
        self.producer = Producer(
            {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "enable.idempotence": True}
        )

    def parts(self, policy: MeterPolicy = QUICK, delivery: Delivery | None = None, **changes: Any) -> Components:
        """Parts for roles; `delivery` for those that post."""

        def deliver() -> Delivery:
            assert delivery is not None
            return delivery

        parts = Components(
            kafka=self.kafka,
            broker=faust_broker(self.connection),
            credentials=None,
            topics=self.topics,
            group_prefix=self.deployment.kafka_id(""),
            partitions=self.settings.kafka_partitions,
            topic_ids=topic_ids(self.connection, [self.topics.raw]),
            policy=policy,
            mapping_delay_s=5,
            max_retries=3,
            retry_delay_s=1,
            delivery=deliver,
            sensors=self.sensors,
        )
        return replace(parts, **changes)

    def put(self, records: Sequence[Raw], partition: int | None = None) -> None:
        """Write raw records, each with its own record time."""
        for record in records:
            place = {} if partition is None else {"partition": partition}
            self.producer.produce(self.topics.raw, record.value, record.key, timestamp=record.timestamp, **place)
        self.producer.flush(10 * PATIENCE)

    def map(self, customer: str, org: str, subscription: str, since_us: int = 0) -> None:
        """Map a customer to an org's running subscription."""
        version = MappingVersion(since_us, org, "tenant")
        record = CustomerRecord(customer, (version,), since_us, since_us)
        self.producer.produce(
            self.topics.orgs, msgspec.json.encode(OrgRecord(org, periods=(Period(subscription, 0),))), org
        )
        self.producer.produce(self.topics.customers, msgspec.json.encode(record), customer)
        self.producer.flush(10 * PATIENCE)

    def read(self, topic: str) -> list[Any]:
        """Return every committed message of a topic."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.settings.kafka_bootstrap_servers,
                "group.id": "reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
                "auto.offset.reset": "earliest",
            }
        )
        count = len(consumer.list_topics(topic, timeout=10 * PATIENCE).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, 0) for number in range(count)])
        messages: list[Any] = []
        ended: set[int] = set()
        while len(ended) < count:
            for message in consumer.consume(1000, 0.02):
                if message.error() is None:
                    messages.append(message)
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
        consumer.close()
        return messages

    def values(self, topic: str) -> list[Any]:
        """Return every committed value of a topic, as JSON."""
        return [json.loads(message.value()) for message in self.read(topic)]

    @asynccontextmanager
    async def running(self, name: str, parts: Components) -> AsyncIterator[Role]:
        """Yield a running role, until the block ends."""
        role, stop = ROLES[name](parts), asyncio.Event()
        task = asyncio.ensure_future(run_role(role, stop))
        try:
            yield role
        finally:
            stop.set()
            await task
