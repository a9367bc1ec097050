"""Clients of Kafka during a kill, with a broker of the test's own."""

import asyncio
import os
from collections.abc import Iterator

import pytest
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest
from confluent_kafka.admin import AdminClient, NewTopic

from streams.runtime.event_loop import run_loop
from streams.runtime.plain_consumer import reading
from tests.support.eventually import PATIENCE, soon
from tests.support.kafka import Kafka, broker_kind, start_kafka

pytestmark = [pytest.mark.faults, pytest.mark.kafka]


@pytest.fixture
def killable_broker() -> Iterator[Kafka]:
    """Yield a broker that may be killed."""
    if broker_kind(os.environ) == "configured":
        pytest.skip("the broker of KAFKA_BOOTSTRAP_SERVERS is not ours to kill")
    broker = start_kafka(os.environ)
    yield broker
    broker.stop()


async def test_stopping_a_reader_of_a_dead_broker_does_not_cancel_the_caller(killable_broker: Kafka) -> None:
    """Otherwise a table would never be read again, without an error."""
    admin = AdminClient({"bootstrap.servers": killable_broker.bootstrap})
    admin.create_topics([NewTopic("t", 1, 1)])["t"].result()

    async def read_until(dead: asyncio.Event) -> str:
        async with reading("t", bootstrap_servers=killable_broker.bootstrap, auto_offset_reset="earliest") as consumer:
            await consumer.getmany(timeout_ms=100)
            started.append(consumer)
            await dead.wait()
            while not consumer._fetcher._pending_tasks:  # a fetch under way, or waiting to be repeated
                await asyncio.sleep(0.001)
        return "went on"

    started: list[object] = []
    dead = asyncio.Event()
    readers = [asyncio.ensure_future(read_until(dead)) for _ in range(8)]
    await soon(lambda: len(started) == 8)
    await asyncio.to_thread(killable_broker.kill)
    dead.set()
    ends = asyncio.gather(*readers, return_exceptions=True)
    assert await asyncio.wait_for(ends, 30 * PATIENCE) == ["went on"] * 8


def test_a_request_on_a_reset_connection_fails_with_an_error_that_aiokafka_handles(kafka: Kafka) -> None:
    """uvloop has its own error texts: the task that refreshes a client's metadata would end, and the client wait
    forever.
    """

    async def ask_on_a_closed_one() -> bool:
        client = AIOKafkaClient(bootstrap_servers=kafka.bootstrap)
        await client.bootstrap()
        (broker,) = client.cluster.brokers()
        for _ in range(3):
            await client.ready(broker.nodeId)
            connection = client._conns[broker.nodeId, ConnectionGroup.DEFAULT]
            connection._writer.transport.abort()
            await asyncio.sleep(0)  # the transport is closed, and its reader does not know yet
            with pytest.raises(KafkaConnectionError, match="closed under a request"):
                await connection.send(MetadataRequest([]))
            assert not connection.connected()
        answered: bool = await asyncio.wait_for(client.force_metadata_update(), 10 * PATIENCE)
        await client.close()
        return answered

    assert run_loop(ask_on_a_closed_one())
