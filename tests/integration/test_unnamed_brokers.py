"""A Kafka that names no broker for a while, as one does whose registration has expired, ends no process."""

from collections import Counter
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.cluster import ClusterMetadata

from streams.runtime.transactions import Write, transactional_writer
from tests.integration.test_meter import billed, now_calls
from tests.support.eventually import soon
from tests.support.stage import Stage

#: Answers of each client's begin that name no broker.
ANSWERS = 3


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """The first answers to each client have no brokers in them; how many, by client."""
    update, answered = ClusterMetadata.update_metadata, Counter[int]()

    def without_brokers(cluster: Any, metadata: Any) -> None:
        if answered[id(cluster)] < ANSWERS:
            answered[id(cluster)] += 1
            metadata.brokers = []
        update(cluster, metadata)

    monkeypatch.setattr(ClusterMetadata, "update_metadata", without_brokers)
    return answered


async def test_a_transaction_waits_until_kafka_names_a_broker(stage: Stage, empty: Counter[int]) -> None:
    source, topic = TopicPartition(stage.topics.raw, 0), stage.topics.enriched
    async with transactional_writer(stage.kafka, f"{stage.settings.topic_prefix}writer") as writer:
        ends = await writer.commit([Write(topic, 0, b"key", b"value")], source, None, "group")
    assert ends == {(topic, 0): 1}
    assert max(empty.values()) == ANSWERS


async def test_a_meter_and_its_transactions_begin_once_kafka_names_a_broker(stage: Stage, empty: Counter[int]) -> None:
    stage.map("acme", "org-a", "sub-a")
    stage.put(now_calls(range(20)))
    async with stage.running("meter", stage.parts()):
        await soon(lambda: billed(stage)[0] == 20)
    assert max(empty.values()) == ANSWERS
