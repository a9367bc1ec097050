"""What aiokafka's own classes do after the repair, if Kafka goes away at a bad moment."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import CoordinatorNotAvailableError, KafkaConnectionError

from streams.runtime.aiokafka_repairs import repair_aiokafka
from tests.support.eventually import within

BROKERS = [(1, "kafka", 9092, None)]


class Connection:
    """A connection to a broker that names these brokers."""

    def __init__(self, brokers: list[Any]) -> None:
        self.is_open = True
        self.brokers = brokers

    def connected(self) -> bool:
        return self.is_open

    async def send(self, _request: object) -> Any:
        return SimpleNamespace(API_VERSION=1, brokers=self.brokers, controller_id=1, topics=[])

    def close(self, **_why: object) -> "asyncio.Future[None]":
        self.is_open = False
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        closed.set_result(None)
        return closed


@pytest.mark.parametrize("refusals", [0, 2])
async def test_a_client_that_lost_its_first_connection_before_a_broker_was_named_connects_again(
    monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    """Before this, the client knew no address to ask, and its role got no partitions."""
    answers: list[Any] = [[], *[KafkaConnectionError("refused")] * refusals, [], BROKERS, BROKERS]
    opened: list[Connection] = []

    async def create_conn(*_place: object, **_options: object) -> Connection:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        opened.append(Connection(answer))
        return opened[-1]

    monkeypatch.setattr("aiokafka.client.create_conn", create_conn)
    repair_aiokafka()
    client = AIOKafkaClient(bootstrap_servers="kafka:9092")
    try:
        await client.bootstrap()
        for _ in range(refusals + 1):
            opened[-1].is_open = False
            async with within(5):
                await client.force_metadata_update()
            with pytest.raises(CoordinatorNotAvailableError):
                await client.coordinator_lookup(0, "group")
        opened[-1].is_open = False
        async with within(5):
            assert await client.force_metadata_update()
        assert client.get_random_node() == 1
    finally:
        await client.close()
