"""A ledger that lacks committed transactions bills nothing, and goes on after the command of its runbook."""

import time
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from connectors.operations.ledger_init import place_of
from connectors.operations.ledger_totals import positions_of
from schemas.errors import TopicProblem
from streams.state.ledger import Ledger, LedgerCache
from tests.support.command import Ended, meterbridge
from tests.support.eventually import PATIENCE, soon
from tests.support.expanded import CENTS, GHOSTS, Growing
from tests.support.kafka import Kafka
from tests.support.old_changelog import append, move_group, put_back


@pytest.fixture
def growing(kafka: Kafka, topic_prefix: str) -> Growing:
    growing = Growing(kafka.bootstrap, topic_prefix, 2, 4)
    growing.clock.go()
    return growing


def group_of(growing: Growing) -> str:
    return growing.stage.deployment.kafka_id("meter")


async def counted_in_two_parts(growing: Growing) -> tuple[list[Any], list[Any]]:
    """Count 60 calls, 10 of them held; return the changelog after 40 of them, and the rest of it.

    The events of all known customers are there, also of calls whose record in the changelog is in the rest.
    """
    stage = growing.stage
    stage.put([*growing.calls(range(35)), *growing.calls(range(1000, 1005), GHOSTS)])
    await growing.meter(until=40)
    early = stage.read(stage.topics.changelog)
    stage.put([*growing.calls(range(35, 50)), *growing.calls(range(1005, 1010), GHOSTS)])
    growing.clock.pass_by(120)
    await growing.meter(until=20, sealed=True)
    assert growing.billed()[0] == 50
    ends = {(record.partition(), record.offset()) for record in early}
    return early, [one for one in stage.read(stage.topics.changelog) if (one.partition(), one.offset()) not in ends]


async def halts(growing: Growing, partitions: int = 2) -> None:
    """Run the meter: it halts these partitions, and bills nothing."""
    before = growing.billed()
    async with growing.stage.running("meter", growing.parts()):
        await growing.halted(partitions)
    assert {reason for _, _, reason in growing.stage.sensors.halted} == {"ledger_behind"}
    assert growing.billed() == before


async def run(growing: Growing, *words: str) -> Ended:
    return await meterbridge(growing.stage, "ledger", *words, "--comment", "test", "--json", "--yes")


async def test_a_ledger_whose_changelog_lost_its_tail_halts_and_is_rebuilt(growing: Growing) -> None:
    early, _ = await counted_in_two_parts(growing)
    put_back(growing.stage, early)
    growing.stage.put(growing.calls(range(50, 60)))
    await halts(growing)
    done = await run(growing, "rebuild")
    assert done.code == 0, done.out + done.err
    assert {line["state"] for line in done.json["ledgers"]} == {"ledger_behind"}
    await growing.each_call_is_billed_once()


async def test_a_kept_ledger_whose_tail_was_lost_halts(growing: Growing) -> None:
    """The process had the ledger before, and reads only the end of the changelog."""
    stage = growing.stage
    stage.put(growing.calls(range(30)))
    place, shelf = place_of(stage.deployment), LedgerCache(time.monotonic)
    await growing.meter(until=30)
    mine = Ledger(0, place, shelf, growing.clock)
    kept_at = (await mine.open()).position.next
    await mine.close()
    early = stage.read(stage.topics.changelog)
    stage.put(growing.calls(range(30, 60)))
    await growing.meter(until=30)
    put_back(stage, early)
    again = Ledger(0, place, shelf, growing.clock)
    with pytest.raises(TopicProblem, match=f"ledger_behind: .* only {kept_at}: "):
        await again.open()
    await again.close()


async def test_a_ledger_that_was_read_from_an_old_copy_goes_on_by_itself_when_the_changelog_is_complete(
    growing: Growing,
) -> None:
    early, late = await counted_in_two_parts(growing)
    put_back(growing.stage, early)
    growing.stage.put(growing.calls(range(50, 60)))
    async with growing.stage.running("meter", growing.parts()) as role:
        role.halt_s = 1.0
        await growing.halted(2)
        append(growing.stage, late)
        await soon(lambda: len(growing.stage.sensors.resumed) == 2, limit_s=30)
    assert {reason for _, _, reason in growing.stage.sensors.halted} == {"ledger_behind"}
    await growing.each_call_is_billed_once()


async def test_an_offset_of_the_group_below_the_position_changes_nothing(growing: Growing) -> None:
    """Kafka lost or forgot it, or an operator reset it: the ledger's position is the one that counts."""
    await counted_in_two_parts(growing)
    move_group(growing.stage, group_of(growing), {0: 0, 1: 3})
    growing.stage.put(growing.calls(range(50, 60)))
    await growing.bill(60)
    assert growing.stage.sensors.halted == []
    await growing.each_call_is_billed_once()


async def test_an_offset_of_the_group_that_was_moved_ahead_halts_and_a_rebuild_counts_the_skipped_calls(
    growing: Growing,
) -> None:
    """No call is open or held, so nothing else makes the rebuild begin before the skipped calls."""
    stage = growing.stage
    stage.put(growing.calls(range(40)))
    growing.clock.pass_by(120)
    await growing.meter(until=40, sealed=True)
    stage.put(growing.calls(range(40, 60)))
    move_group(stage, group_of(growing), ends_of(growing))
    await halts(growing)
    done = await run(growing, "rebuild")
    assert done.code == 0, done.out + done.err
    await growing.bill(60)
    assert growing.billed() == (60, 60 * CENTS), "not one call was sent again"
    await growing.each_call_is_billed_once()


async def test_where_the_end_of_raw_is_lost_too_a_new_ledger_bills_nothing_twice(growing: Growing) -> None:
    """Calls of which nothing shows whether they were counted wait for a check; new ones are billed."""
    early, _ = await counted_in_two_parts(growing)
    put_back(growing.stage, early)
    ahead = {partition: end + 3 for partition, end in ends_of(growing).items()}  # as if raw had lost three records
    move_group(growing.stage, group_of(growing), ahead)
    await halts(growing)
    refused = await run(growing, "rebuild")
    assert (refused.code, "ledger init --from latest" in refused.err) == (1, True), refused.err
    begun = await run(growing, "init", "--from", "latest")
    assert begun.code == 0, begun.out + begun.err
    assert {(line["state"], line["next"]) for line in begun.json["ledgers"]} == {
        ("ledger_behind", end) for end in ahead.values()
    }
    assert {number: one.next for number, one in positions_of(growing.stage.deployment).items()} == ahead
    growing.put_by_new_clients([*growing.sent.values()])
    growing.clock.pass_by(1200)
    growing.put_by_new_clients(growing.calls(range(2000, 2010)))
    await growing.bill(60)
    assert growing.billed() == (60, 60 * CENTS)
    await growing.sound()


async def test_no_partitions_are_added_while_a_ledger_is_behind(growing: Growing) -> None:
    early, _ = await counted_in_two_parts(growing)
    put_back(growing.stage, early)
    refused = await growing.expand("--yes")
    assert (refused.code, "`meterbridge ledger rebuild`" in refused.err) == (1, True), refused.out + refused.err
    assert (await run(growing, "rebuild")).code == 0
    assert (await growing.expand("--yes")).code == 0
    growing.grown()
    await growing.each_call_is_billed_once()


def ends_of(growing: Growing) -> dict[int, int]:
    """The end of each raw partition."""
    admin, ends = AdminClient({"bootstrap.servers": growing.bootstrap}), {}
    asked = admin.list_offsets({TopicPartition(growing.stage.topics.raw, n): OffsetSpec.latest() for n in (0, 1)})
    for place, future in asked.items():
        ends[place.partition] = future.result(30 * PATIENCE).offset
    return ends
