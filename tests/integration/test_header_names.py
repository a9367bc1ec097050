"""A header whose name is not UTF-8 stops no reader: not a table, not a role, not a command."""

import time

import msgspec
import pytest

from connectors.kafka.topic_scan import header_of, offset_range_of, scan
from schemas.customers import CustomerRecord, MappingVersion
from streams.runtime.compacted_table import CompactedTable
from tests.support.calls import raw, slp
from tests.support.eventually import soon, within
from tests.support.header_names import put_with_odd_header
from tests.support.kafka import Kafka
from tests.support.stage import Stage

AT_MS = 1_700_000_000_000


@pytest.fixture
def stage(kafka: Kafka, topic_prefix: str) -> Stage:
    return Stage(kafka.bootstrap, topic_prefix, partitions=1)


def mapping(customer: str) -> tuple[bytes, bytes]:
    record = CustomerRecord(customer, (MappingVersion(0, "org", "tenant"),), 0, 0)
    return customer.encode(), msgspec.json.encode(record)


async def test_a_table_reads_every_record_of_such_a_batch_once(kafka: Kafka, stage: Stage) -> None:
    for number in range(3):
        await put_with_odd_header(
            kafka.bootstrap, stage.topics.customers, [mapping(f"odd-{number}-{one}") for one in range(3)]
        )
        stage.map(f"sound-{number}", "org", "sub")
    table = CompactedTable(stage.kafka, stage.topics.customers, CustomerRecord, time.monotonic, "customers")
    try:
        async with within(10):
            await table.start()
        assert len(table.table) == 12
        assert table.version == 12
    finally:
        await table.stop()


async def test_the_meter_counts_such_a_call_and_those_behind_it(kafka: Kafka, stage: Stage) -> None:
    stage.map("acme", "org", "sub")
    at = time.time_ns() // 1000
    calls = [raw(0, slp(number, at_us=at), received_us=at) for number in range(6)]
    stage.put(calls[:2])
    odd = [(call.key or b"", call.value or b"") for call in calls[2:4]]
    await put_with_odd_header(kafka.bootstrap, stage.topics.raw, odd, at_ms=calls[2].timestamp)
    stage.put(calls[4:])
    async with stage.running("meter", stage.parts()):
        await soon(lambda: stage.sensors.calls.get("billable") == 6)
    assert stage.sensors.calls == {"billable": 6}


async def test_a_command_reads_such_a_record(kafka: Kafka, stage: Stage) -> None:
    await put_with_odd_header(kafka.bootstrap, stage.topics.customers, [mapping("odd")], at_ms=AT_MS)
    [message] = list(scan(stage.connection, offset_range_of(stage.connection, stage.topics.customers)))
    assert [header_of(message, name) for name in ("manifest", "\ufffd\ufffd\ufffdQ")] == ["", "of a sender"]
    assert message.headers() == message.headers()
    read = message.topic(), message.partition(), message.offset(), message.key(), message.value(), message.timestamp()
    assert read == (stage.topics.customers, 0, 0, *mapping("odd"), (1, AT_MS))
