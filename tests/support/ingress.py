"""An ingress on loopback in front of a real Kafka, and everything that its topics then hold."""

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from connectors.http.client_address import ClientAddressPolicy
from connectors.http.content_encoding import PACKED
from connectors.http.rate_limit import SenderRateLimiter
from connectors.ingest.auth import WebhookAuth
from connectors.ingest.call_context import ContextFields
from connectors.ingest.routes import IngressDeps, ingress_routes
from connectors.ingest.store import ElementStore, RecordSender
from connectors.kafka.client_config import producer_config
from connectors.kafka.producer import KafkaProducer
from schemas.records import Rejection
from schemas.topics import RAW, REJECTED, topic_config
from schemas.wire import RawRecord
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from tests.support.eventually import PATIENCE
from tests.support.topic_prefix import own_topic_prefix

PARTITIONS = 3
RECEIVED_AT = 1_795_215_900_123_456
USAGE = "/webhook/litellm/usage"


@dataclass(frozen=True)
class Stored:
    """One record of a topic as the broker gives it back."""

    key: str | None
    value: bytes
    timestamp_ms: int
    partition: int
    topic: str

    def raw(self) -> RawRecord:
        return msgspec.json.decode(self.value, type=RawRecord)

    def rejection(self) -> Rejection:
        return msgspec.json.decode(self.value, type=Rejection)


def reasons(told: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Return the rejected elements of an answer: index and reason."""
    return [(one["index"], one["reason"]) for one in told["rejected"]]


@dataclass
class Ingress:
    """A running ingress: post to it, then read what is durable. `begin`: where a partition is read from, if not from its start."""

    bootstrap: str
    prefix: str
    client: TestClient[Any, Any]
    requests: list[tuple[str, int]] = field(default_factory=list)
    elements: dict[str, int] = field(default_factory=dict)
    begin: Mapping[tuple[str, int], int] = field(default_factory=dict)

    def begins_here(self) -> None:
        """Ignore the present records of the topics, which belong to other tests."""
        self.begin = _ends(self.bootstrap, (self.prefix + RAW.name, self.prefix + REJECTED.name))

    async def post(self, body: bytes | str, path: str = USAGE, **headers: str) -> ClientResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, data=body, headers=named)

    def raw(self) -> list[Stored]:
        return read_topic(self.bootstrap, self.prefix + RAW.name, self.begin)

    def rejected(self) -> list[Rejection]:
        return [stored.rejection() for stored in read_topic(self.bootstrap, self.prefix + REJECTED.name, self.begin)]


def create_topics(bootstrap: str, prefix: str) -> None:
    """Create the two topics that the ingress writes, as the catalogue defines them."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    new = [
        NewTopic(prefix + topic.name, PARTITIONS, 1, config=dict(topic_config(topic, 1))) for topic in (RAW, REJECTED)
    ]
    for created in admin.create_topics(new).values():
        created.result()


@contextmanager
def topics_of_module(bootstrap: str) -> Iterator[str]:
    """Yield the prefix of topics for tests that look at what their own ingress stored alone."""
    with own_topic_prefix(bootstrap) as prefix:
        create_topics(bootstrap, prefix)
        yield prefix


def store_in(sender: RecordSender, prefix: str = "", kept: ContextFields | None = None) -> ElementStore:
    topics = (prefix + RAW.name, prefix + REJECTED.name)
    return ElementStore(sender, *topics, CUSTOMER_ID_FIELDS, lambda: RECEIVED_AT, kept or ContextFields())


@asynccontextmanager
async def running_ingress(
    bootstrap: str,
    prefix: str,
    *,
    auth: WebhookAuth | None = None,
    timeout_s: float = 30,
    max_body_bytes: int = 64 << 20,
    max_bytes_in_flight: int = 256 << 20,
    kept: ContextFields | None = None,
) -> AsyncIterator[Ingress]:
    """Yield an ingress with its own producer; the topics must exist."""
    producer = KafkaProducer(producer_config(bootstrap, answer_within_s=timeout_s))
    try:
        async with serving(
            store_in(producer, prefix, kept),
            bootstrap=bootstrap,
            prefix=prefix,
            auth=auth,
            timeout_s=timeout_s,
            max_body_bytes=max_body_bytes,
            max_bytes_in_flight=max_bytes_in_flight,
        ) as ingress:
            yield ingress
    finally:
        await producer.close(1)


@asynccontextmanager
async def serving(
    store: ElementStore,
    *,
    bootstrap: str = "",
    prefix: str = "",
    auth: WebhookAuth | None = None,
    timeout_s: float = 30,
    max_body_bytes: int = 64 << 20,
    max_bytes_in_flight: int = 256 << 20,
    origins: ClientAddressPolicy | None = None,
    pace: SenderRateLimiter | None = None,
) -> AsyncIterator[Ingress]:
    """Yield an ingress in front of any store."""
    requests: list[tuple[str, int]] = []
    elements: dict[str, int] = {}

    def count(outcome: str, how_many: int) -> None:
        elements[outcome] = elements.get(outcome, 0) + how_many

    deps = IngressDeps(
        store=store,
        auth=auth or WebhookAuth(),
        timeout_s=timeout_s,
        max_body_bytes=max_body_bytes,
        max_bytes_in_flight=max_bytes_in_flight,
        origins=origins,
        pace=pace,
        on_request=lambda source, status: requests.append((source, status)),
        on_elements=count,
    )
    app = web.Application(handler_args=PACKED)
    app.add_routes(ingress_routes(deps))
    async with TestClient(TestServer(app)) as client:
        yield Ingress(bootstrap, prefix, client, requests, elements)


def read_topic(bootstrap: str, topic: str, begin: Mapping[tuple[str, int], int] | None = None) -> list[Stored]:
    """Return every record that the topic holds now, partition by partition; from `begin` on, where it names the
    partition.
    """
    consumer = _consumer(bootstrap)
    stored: list[Stored] = []
    try:
        for partition in range(PARTITIONS):
            end = _end_of(consumer, TopicPartition(topic, partition))
            found = (begin or {}).get((topic, partition), 0)
            consumer.assign([TopicPartition(topic, partition, found)])
            while found < end:
                messages = consumer.consume(min(end - found, 10_000), timeout=10)
                assert messages, "the broker stopped answering"
                for message in messages:
                    assert message.error() is None, message.error()
                    key = message.key()
                    stored.append(
                        Stored(key and key.decode(), message.value(), message.timestamp()[1], partition, topic)
                    )
                found += len(messages)
    finally:
        consumer.close()
    return stored


def _ends(bootstrap: str, topics: Sequence[str]) -> dict[tuple[str, int], int]:
    """Return where the partitions end now."""
    consumer = _consumer(bootstrap)
    try:
        places = [(topic, partition) for topic in topics for partition in range(PARTITIONS)]
        return {place: _end_of(consumer, TopicPartition(*place)) for place in places}
    finally:
        consumer.close()


def _consumer(bootstrap: str) -> Consumer:
    return Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "reads-all", "enable.auto.commit": False, "fetch.wait.max.ms": 10}
    )


def _end_of(consumer: Consumer, partition: TopicPartition) -> int:
    """Return the end of a partition. A new topic may have no leader yet."""
    deadline = time.monotonic() + 10 * PATIENCE
    while True:
        try:
            return int(consumer.get_watermark_offsets(partition, timeout=10 * PATIENCE)[1])
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
