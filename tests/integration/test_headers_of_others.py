"""A call in the raw topic is a call, whatever headers another program has added: each reader decides in the same way."""

import msgspec
import pytest
from confluent_kafka import Producer

from schemas.records import WriteOff
from streams.runtime.transactions import partition_of
from streams.state.step_writes import CONTROL, WRITE_OFF, order_in
from tests.integration.test_ledger_rebuild import everything_again, rebuilt
from tests.support.calls import Raw
from tests.support.command import meterbridge
from tests.support.eventually import PATIENCE
from tests.support.expanded import Growing
from tests.support.kafka import Kafka

ORDER = msgspec.json.encode(WriteOff("audit-1", 1, 0))
#: Headers that are not those of an operator's order, on a call.
OTHERS: tuple[list[tuple[str, bytes | None]], ...] = (
    [(CONTROL, b"x")],
    [(CONTROL, None)],
    [(CONTROL, b"")],
    [(CONTROL, WRITE_OFF), (CONTROL, b"x")],
    [(CONTROL, WRITE_OFF)],
    [("", b"\xff"), ("traceparent", b"\x00"), ("x" * 5000, None)],
)


@pytest.fixture
def growing(kafka: Kafka, topic_prefix: str) -> Growing:
    growing = Growing(kafka.bootstrap, topic_prefix, 2, 4)
    growing.clock.go()
    return growing


def put(growing: Growing, records: list[Raw]) -> None:
    """Write records with the headers of others, each in turn, to the partitions of the topic before it grew."""
    producer = Producer({"bootstrap.servers": growing.bootstrap})
    for number, record in enumerate(records):
        place = partition_of(record.key or b"", growing.old)
        headers = OTHERS[number % len(OTHERS)]
        producer.produce(
            growing.stage.topics.raw, record.value, record.key, place, timestamp=record.timestamp, headers=headers
        )
    producer.flush(10 * PATIENCE)


def test_an_order_has_its_header_last_and_its_value() -> None:
    assert order_in([(CONTROL, b"x"), (CONTROL, WRITE_OFF)], ORDER) == WriteOff("audit-1", 1, 0)
    for headers in (None, [], *OTHERS[:4]):
        assert order_in(headers, ORDER) is None
    for value in (None, b"", b"{}", b"\xff"):
        assert order_in([(CONTROL, WRITE_OFF)], value) is None


async def test_after_a_rebuild_a_repeat_of_such_a_call_is_a_duplicate(growing: Growing) -> None:
    put(growing, growing.calls(range(36)))
    await growing.meter(until=36, sealed=True)
    growing.lose_changelog()
    assert (await rebuilt(growing)).code == 0
    await everything_again(growing)


async def test_a_replay_sends_such_a_call(growing: Growing) -> None:
    put(growing, growing.calls(range(12)))
    done = await meterbridge(growing.stage, "replay", "--from", "1h", "--to", "0s", "--dry-run", "--json")
    assert done.json["calls"] == 12, done.err


async def test_after_a_topic_has_grown_such_a_call_is_forwarded_to_the_partition_of_its_key(growing: Growing) -> None:
    growing.stage.put(growing.calls(range(12)))
    await growing.meter(until=12, sealed=True)
    assert (await growing.expand("--yes")).code == 0
    growing.grown()
    put(growing, growing.calls(range(100, 136)))
    await growing.bill(48)
    await everything_again(growing)
