"""Commands read what is committed, also behind a transaction that is not finished."""

import asyncio

import pytest
from confluent_kafka import Producer

from connectors.kafka import topic_scan
from connectors.kafka.topic_scan import offset_range_of, scan
from schemas.errors import Unavailable
from tests.support.eventually import PATIENCE
from tests.support.stage import Stage


def transaction(stage: Stage, name: str, value: bytes) -> Producer:
    """Begin a transaction, and write one event to partition 0."""
    producer = Producer(
        {"bootstrap.servers": stage.settings.kafka_bootstrap_servers, "transactional.id": f"{stage.topics.raw}-{name}"}
    )
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce(stage.topics.events, value, "sub", partition=0)
    producer.flush(10 * PATIENCE)
    return producer


def read(stage: Stage) -> list[bytes]:
    """Return the values in the whole topic of events."""
    return [
        message.value() for message in scan(stage.connection, offset_range_of(stage.connection, stage.topics.events))
    ]


async def test_records_committed_behind_an_unfinished_transaction_are_read(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that is rebuilt from the events would bill again those that it does not see."""
    hiding = await asyncio.to_thread(transaction, stage, "hiding", b"first")
    behind = await asyncio.to_thread(transaction, stage, "behind", b"second")
    await asyncio.to_thread(behind.commit_transaction)
    with monkeypatch.context() as impatient:
        impatient.setattr(topic_scan, "_SILENCE_S", 0.5)
        with pytest.raises(Unavailable, match="could not be read to its end"):
            await asyncio.to_thread(read, stage)
    reading = asyncio.ensure_future(asyncio.to_thread(read, stage))
    await asyncio.wait({reading}, timeout=0.5)
    await asyncio.to_thread(hiding.abort_transaction)
    assert await reading == [b"second"]
