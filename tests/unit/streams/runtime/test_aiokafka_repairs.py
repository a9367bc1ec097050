"""What aiokafka's own classes do after the repair, if Kafka goes away at a bad moment."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer import fetcher
from aiokafka.errors import CoordinatorNotAvailableError, KafkaConnectionError
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

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


@pytest.mark.parametrize("packed", [0, 1, 3])
def test_a_header_whose_name_is_not_utf8_stops_no_reader(packed: int) -> None:
    """Before this, each attempt to read the partition raised UnicodeDecodeError at the same record."""
    batches = [batch(0, packed), batch(3, packed, NAME), batch(6, packed), batch(9, packed, NAME)]
    records = read(b"".join(batches) + batch(12, packed)[:70])
    assert [(record.offset, record.key, record.value) for record in records] == [
        (offset, b"k%d" % offset, None if offset % 3 else b"v") for offset in range(1, 12)
    ]
    assert [record.headers[0][0] for record in records][::3] == [
        "name",
        "\ufffd\ufffd\ufffdQ",
        "name",
        "\ufffd\ufffd\ufffdQ",
    ]
    assert {record.headers[1] for record in records} == {("other", None)}
    for record in records:  # what is forwarded can be written
        batch(0, 0).extend(record.headers[0][0].encode())


def test_records_of_an_aborted_transaction_stay_hidden_before_and_behind_such_a_header() -> None:
    aborted, other = (7, 0), (8, 6)
    batches = [batch(0, producer=7), batch(3, 0, NAME), batch(6, producer=8), batch(9, 0, NAME), batch(12)]
    assert [record.offset for record in read(b"".join(batches), [aborted, other])] == [3, 4, 5, 9, 10, 11, 12, 13, 14]


NAME = b"\xff\xfe\x80Q"


def batch(offset: int, packed: int = 0, name: bytes = b"name", producer: int = -1) -> bytearray:
    """Return a batch of three records from `offset` on; `packed`: its compression; `producer`: of a transaction."""
    builder = _DefaultRecordBatchBuilderPy(2, packed, producer >= 0, producer, 0, 0, 1 << 14)
    written = AnyName("name")
    written.written = name
    for number in range(3):
        at, value = offset + number, None if number else b"v"
        builder.append(number, 1, b"k%d" % at, value, [(written, b"x"), ("other", None)])
    made: bytearray = builder.build()
    made[:8] = offset.to_bytes(8)
    return made


class AnyName(str):
    """A name that is written as these bytes."""

    __slots__ = ("written",)
    written: bytes

    def encode(self, *_: object) -> bytes:
        return self.written


def read(fetched: bytes, aborted: list[tuple[int, int]] | None = None) -> list[ConsumerRecord]:
    """Return the records of a fetch, from the first offset on that was not read before."""
    repair_aiokafka()
    first = 0 if aborted else 1
    place, made = TopicPartition("topic", 0), fetcher.MemoryRecords(bytes(fetched))
    return list(fetcher.PartitionRecords(place, made, aborted, first, None, None, True, fetcher.READ_COMMITTED))
