"""`meterbridge topics expand`: more partitions, and every call is still billed once, to the cent."""

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from connectors.operations.ledger_totals import positions_of
from connectors.operations.ledgers import ledgers_of
from schemas.ledger import POSITION_KEY, Position
from streams.runtime.transactions import partition_of
from tests.support.command import meterbridge
from tests.support.eventually import PATIENCE
from tests.support.expanded import CENTS, GHOSTS, NAMES, Growing
from tests.support.kafka import Kafka


@pytest.fixture
def growing(kafka: Kafka, topic_prefix: str) -> Growing:
    return Growing(kafka.bootstrap, topic_prefix, 2, 6)


async def test_usage_counted_open_held_or_unread_before_is_billed_once_afterwards(growing: Growing) -> None:
    """Counted calls are sent again by clients that know the new partitions and by some that do not."""
    counted, held = growing.calls(range(60)), growing.calls(range(100, 120), GHOSTS)
    growing.stage.put([*counted, *held])
    await growing.meter(until=80)
    assert growing.billed()[0] == 0, "all windows are open"
    unread = growing.calls(range(60, 90))
    growing.stage.put([*counted[:10], *unread])

    shown = await growing.expand()
    assert (shown.code, shown.json["done"], shown.json["was"]) == (0, False, 2), shown.err
    done = await growing.expand("--yes", "--comment", "more meters")
    assert (done.code, done.json["done"], len(done.json["ledgers"])) == (0, True, 2), done.err
    growing.stage.put([*counted, *held, *unread, *growing.calls(range(200, 230))])  # by a producer that knows of two
    growing.grown()
    growing.put_by_new_clients([*counted, *held, *growing.calls(range(300, 330))])
    for ghost in GHOSTS:
        growing.stage.map(ghost, "org", "sub")
    await growing.bill(170)
    assert growing.billed() == (170, 170 * CENTS)
    assert growing.stage.sensors.calls["duplicate"] == 60 + 20 + 60 + 20 + 30 + 10
    await growing.sound()
    positions = positions_of(growing.stage.deployment)
    assert sorted(positions) == [*range(6)]
    assert {number for number, one in positions.items() if one.forwarded} == {0, 1}
    (line,) = growing.stage.values(growing.stage.topics.audit)
    assert (line["action"], line["target"]) == ("topics.expand", {"from": "2", "to": "6"})


async def test_a_second_expansion_keeps_the_copies_of_the_first(growing: Growing) -> None:
    """For the same hour, chunk by chunk: no copied chunk is replaced by one of the new partition's own."""
    first = growing.calls(range(60))
    growing.stage.put(first)
    await growing.meter(until=60)
    assert (await growing.expand("--yes")).code == 0
    growing.grown()
    growing.put_by_new_clients(growing.calls(range(60, 120)))
    await growing.meter(until=60)
    growing.new = 12
    assert (await growing.expand("--yes")).code == 0
    growing.grown()
    growing.put_by_new_clients([*growing.sent.values()])
    await growing.bill(120)
    assert growing.billed() == (120, 120 * CENTS)
    assert growing.stage.sensors.calls == {"duplicate": 120}
    assert len({number for number, state in (await ledgers_of(growing.stage.deployment)).items() if state.seen}) == 12
    await growing.sound()


async def test_held_usage_is_written_off_in_its_old_and_in_its_new_ledger(
    growing: Growing,
) -> None:
    growing.stage.put(growing.calls(range(20), GHOSTS))
    await growing.meter(until=20)
    assert (await growing.expand("--yes")).code == 0
    growing.grown()
    growing.put_by_new_clients(growing.calls(range(20, 40), GHOSTS))
    await growing.meter(until=20)
    for ghost in GHOSTS:
        result = await meterbridge(
            growing.stage, "held", "write-off", "--customer", ghost, "--comment", "none", "--json", "--until", "0s"
        )
        assert (result.code, result.json["calls"]) == (0, 10), result.err
    await growing.bill(0)
    left = await meterbridge(growing.stage, "held", "list", "--json")
    assert left.json["calls"] == 0
    total = sum(one.counters.written_off.calls for one in positions_of(growing.stage.deployment).values())
    assert total == 40


async def test_the_expansion_is_refused_with_a_reason_while_a_worker_runs_and_for_an_invalid_number(
    growing: Growing,
) -> None:
    growing.stage.put(growing.calls(range(12)))
    async with growing.stage.running("meter", growing.parts()):
        await growing.meter_has_counted(12)
        refused = await growing.expand("--yes")
        assert (refused.code, "meter" in refused.err) == (1, True)
    for number, code, why in ((3, 2, "multiple"), (1, 1, "never shrinks")):
        refused = await growing.expand("--yes", partitions=number)
        assert (refused.code, why in refused.err) == (code, True), refused.err
    growing.clock.pass_by(-7200)
    growing.stage.put(growing.calls(range(20, 30)))
    refused = await growing.expand("--yes")
    assert (refused.code, "2.0 h old" in refused.err) == (1, True), refused.err
    assert growing.stage.read(growing.stage.topics.audit) == []
    assert set(positions_of(growing.stage.deployment)) <= {0, 1}


async def test_a_topic_that_was_grown_by_hand_is_read_by_no_new_ledger_until_its_keys_moved(
    growing: Growing,
) -> None:
    """Kafka's own command moves the keys of the raw topic, but not what was known about them."""
    counted = growing.calls(range(60))
    growing.stage.put(counted)
    await growing.meter(until=60)
    names = growing.stage.topics
    admin = AdminClient({"bootstrap.servers": growing.bootstrap})
    for name in (names.raw, names.changelog, names.enriched, names.rejected, names.events):
        admin.create_partitions([NewPartitions(name, 6)])[name].result()
    growing.grown()
    growing.put_by_new_clients(counted)
    async with growing.stage.running("meter", growing.parts()):
        await growing.halted(6)
    assert {reason for _, _, reason in growing.stage.sensors.halted} == {"partitions_changed"}
    assert (await growing.expand("--yes")).code == 0
    await growing.bill(60)
    assert growing.billed() == (60, 60 * CENTS)
    await growing.sound()


async def test_a_new_partition_that_an_older_release_has_begun_is_reported_and_nothing_moves(
    growing: Growing,
) -> None:
    growing.stage.put(growing.calls(range(12)))
    await growing.meter(until=12)
    changelog = growing.stage.topics.changelog
    admin = AdminClient({"bootstrap.servers": growing.bootstrap})
    admin.create_partitions([NewPartitions(changelog, 6)])[changelog].result()
    begun = msgspec.msgpack.encode(Position(partitions=6))
    producer = Producer({"bootstrap.servers": growing.bootstrap})
    producer.produce(changelog, begun, POSITION_KEY, partition=3)
    producer.flush(10 * PATIENCE)
    refused = await growing.expand("--yes")
    assert (refused.code, f"{changelog}-3 has a ledger" in refused.err) == (1, True), refused.err
    assert positions_of(growing.stage.deployment)[1].partitions == 2


def test_the_test_customers_are_on_several_partitions() -> None:
    """Otherwise these tests would prove nothing."""
    for names in (NAMES, GHOSTS):
        assert len({partition_of(name.encode(), 6) for name in names}) > 2
