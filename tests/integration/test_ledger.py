"""The ledger with real Kafka: its state is its changelog, one owner commits, and a wrong topic stops it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from schemas.errors import LedgerBroken, TopicProblem
from schemas.ledger import Position, Window
from schemas.topics import RAW, topic_config
from streams.core.mapping.resolve import Target
from streams.core.metering.fold import Fold
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes
from streams.runtime.transactions import KafkaStalled
from streams.state.changelog import records_of
from streams.state.ledger import Ledger, LedgerCache, LedgerConfig
from tests.support.calls import NOON, Raw, raw, slp
from tests.support.eventually import PATIENCE, soon
from tests.support.kafka import Kafka
from tests.support.stage import QUICK, Stage


def subscribed(customer: str, at_us: int, kind: str) -> Target:
    return Target("org", "sub")


class LedgerSetup:
    """Ledgers of partition 0 of one test's raw topic."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.fold = Fold(QUICK, "d-t-0-")
        self.opened: list[Ledger] = []

    def place(self, deployment: str = "meterbridge") -> LedgerConfig:
        parts, topics = self.stage.parts(), self.stage.topics
        return LedgerConfig(
            parts.kafka, topics, parts.topic_ids[topics.raw], parts.partitions, parts.group("meter"), deployment
        )

    def ledger(self, shelf: LedgerCache | None = None, deployment: str = "meterbridge") -> Ledger:
        ledger = Ledger(0, self.place(deployment), shelf or LedgerCache(time.monotonic), lambda: NOON)
        self.opened.append(ledger)
        return ledger

    def changes(self, state: LedgerState, numbers: range) -> Changes:
        start = state.position.next
        records = [raw(start + n, slp(number)) for n, number in enumerate(numbers)]
        return self.fold(state, records, subscribed)

    def feed(self, numbers: range) -> None:
        records: list[Raw] = [raw(0, slp(number)) for number in numbers]
        self.stage.put(records, partition=0)


@pytest.fixture
async def bench(kafka: Kafka, topic_prefix: str) -> object:
    bench = LedgerSetup(Stage(kafka.bootstrap, topic_prefix))
    yield bench
    for ledger in bench.opened:
        await ledger.close()


def snapshot(state: LedgerState) -> tuple[object, dict[int, Window], list[bool], dict[int, list[int]]]:
    """Everything that a ledger holds, comparable."""
    known = state.seen.contains([bytes([n]) * 16 for n in range(3)])
    return (
        state.position,
        state.windows,
        known,
        {hour: list(fetch_batches) for hour, fetch_batches in state.seen_blocks.items()},
    )


async def test_state_is_a_function_of_the_changelog(bench: LedgerSetup) -> None:
    bench.feed(range(30))
    first = bench.ledger()
    state = await first.open()
    for start in range(0, 30, 10):
        await first.commit(bench.changes(state, range(start, start + 10)))
    before = snapshot(state)
    again = await bench.ledger().open()
    assert snapshot(again) == before
    assert bench.changes(again, range(30)).position.counters.duplicate.calls == 30


async def test_a_reused_ledger_reads_only_the_end_of_the_changelog_and_is_equal(bench: LedgerSetup) -> None:
    bench.feed(range(40))
    shelf = LedgerCache(time.monotonic)
    mine = bench.ledger(shelf)
    state = await mine.open()
    await mine.commit(bench.changes(state, range(10)))
    await mine.close()
    other = bench.ledger()
    await other.commit(bench.changes(await other.open(), range(10, 20)))
    await other.close()
    back = await bench.ledger(shelf).open()
    assert back is state
    assert snapshot(back) == snapshot(await bench.ledger().open())
    assert len(back.seen) == 20


async def test_a_late_transaction_of_a_frozen_owner_is_refused(bench: LedgerSetup) -> None:
    """Two owners can never both commit: opening the ledger fences the earlier one."""
    bench.feed(range(20))
    frozen, awake = bench.ledger(), bench.ledger()
    stale = await frozen.open()
    late = bench.changes(stale, range(10))
    fresh = await awake.open()
    await awake.commit(bench.changes(fresh, range(10)))
    with pytest.raises(KafkaError):
        await frozen.commit(late)
    assert stale.position.next == 0
    assert (await bench.ledger().open()).position.counters.folded.calls == 10


async def test_an_aborted_step_leaves_no_trace(bench: LedgerSetup) -> None:
    bench.feed(range(20))
    ledger = bench.ledger()
    state = await ledger.open()
    await ledger.commit(bench.changes(state, range(5)))
    cut = asyncio.ensure_future(ledger.commit(bench.changes(state, range(5, 10))))
    while not ledger.in_transaction():
        await asyncio.sleep(0)
    cut.cancel()
    await asyncio.wait({cut})
    again = await bench.ledger().open()
    assert again.position.next == state.position.next == 5


async def renew(bench: LedgerSetup, wait: Callable[[], Awaitable[None]]) -> None:
    admin = AdminClient({"bootstrap.servers": bench.stage.settings.kafka_bootstrap_servers})
    for deleted in admin.delete_topics([bench.stage.topics.raw], operation_timeout=10 * PATIENCE).values():
        deleted.result()
    await wait()
    again = NewTopic(bench.stage.topics.raw, 2, 1, config=topic_config(RAW, 1))
    for created in admin.create_topics([again]).values():
        created.result()
    name = again.topic  # the broker may know it later than the controller
    await soon(lambda: admin.list_topics(name, timeout=5 * PATIENCE).topics[name].error is None)


async def test_a_recreated_topic_stops_the_ledger(bench: LedgerSetup) -> None:
    bench.feed(range(5))
    first = bench.ledger()
    await first.commit(bench.changes(await first.open(), range(5)))
    await first.close()
    await renew(bench, lambda: asyncio.sleep(0.5))
    with pytest.raises(TopicProblem, match="topic_recreated"):
        await bench.ledger().open()


async def test_a_topic_with_more_partitions_stops_the_ledger(bench: LedgerSetup) -> None:
    """More partitions move keys: duplicates would no longer meet in one ledger."""
    admin = AdminClient({"bootstrap.servers": bench.stage.settings.kafka_bootstrap_servers})
    for grown in admin.create_partitions([NewPartitions(bench.stage.topics.raw, 5)]).values():
        grown.result()
    name = bench.stage.topics.raw
    await soon(lambda: len(admin.list_topics(name, timeout=5 * PATIENCE).topics[name].partitions) == 5)
    with pytest.raises(TopicProblem, match="partitions_changed"):
        await bench.ledger().open()


async def test_a_position_beyond_the_log_stops_the_ledger(bench: LedgerSetup) -> None:
    bench.feed(range(3))
    first = bench.ledger()
    state = await first.open()
    await first.commit(bench.changes(state, range(10)))
    with pytest.raises(TopicProblem, match="offset_out_of_range"):
        await bench.ledger().open()


async def test_another_deployments_ledger_is_not_taken_over(bench: LedgerSetup) -> None:
    bench.feed(range(3))
    first = bench.ledger()
    await first.commit(bench.changes(await first.open(), range(3)))
    with pytest.raises(TopicProblem, match="other_deployment"):
        await bench.ledger(deployment="somebody-else").open()


async def test_a_lost_changelog_is_noticed(bench: LedgerSetup) -> None:
    """The group has committed offsets, but the state is gone: starting from nothing would bill everything again."""
    bench.feed(range(3))
    first = bench.ledger()
    await first.commit(bench.changes(await first.open(), range(3)))
    await first.close()
    await asyncio.to_thread(delete_changelog, bench)
    with pytest.raises(TopicProblem, match="ledger_missing"):
        await bench.ledger().open()


async def test_a_ledger_behind_an_unfinished_transaction_of_its_beginning_is_opened(bench: LedgerSetup) -> None:
    """Kafka answers a commit before its markers are written, so a ledger's first transaction may hide the later ones."""
    bench.feed(range(3))
    first = bench.ledger()
    await first.commit(bench.changes(await first.open(), range(3)))
    before = first.state
    await first.close()
    kafka, name = bench.stage.settings.kafka_bootstrap_servers, bench.stage.topics.changelog
    stored = bench.stage.read(name)
    await asyncio.to_thread(delete_changelog, bench)
    hiding = transaction(kafka, f"{name}-begin-0", name, [(b"zz", b"")])
    later = transaction(kafka, "later", name, [(record.key(), record.value()) for record in stored])
    later.commit_transaction()
    opened = await bench.ledger().open()
    assert before is not None and (opened.position, opened.windows) == (before.position, before.windows)
    with pytest.raises(KafkaException):
        hiding.commit_transaction()


async def test_a_commit_with_an_unknown_outcome_is_found_behind_another_producers_unfinished_transaction(
    bench: LedgerSetup,
) -> None:
    """A kept ledger reads the tail of its changelog. What is hidden there was committed: folded again it is billed twice."""
    bench.feed(range(6))
    shelf = LedgerCache(time.monotonic)
    mine = bench.ledger(shelf)
    await mine.commit(bench.changes(await mine.open(), range(3)))
    kafka, name = bench.stage.settings.kafka_bootstrap_servers, bench.stage.topics.changelog
    hiding = await asyncio.to_thread(transaction, kafka, f"{name}-begin-0", name, [(b"zz", b"")])
    writer: Any = mine._writer
    committed = writer.commit

    async def and_no_answer(*arguments: Any) -> None:
        await committed(*arguments)
        raise KafkaStalled("no answer")

    writer.commit = and_no_answer
    with pytest.raises(KafkaStalled):
        await mine.commit(bench.changes(mine.state or LedgerState(Position()), range(3, 6)))
    await mine.close()
    assert (await bench.ledger(shelf).open()).position.next == 6
    with pytest.raises(KafkaException):
        hiding.commit_transaction()


async def test_no_second_ledger_begins_while_the_first_is_behind_another_producers_unfinished_transaction(
    bench: LedgerSetup,
) -> None:
    """An expansion writes the ledgers of new partitions with the producer of an old one."""
    kafka, name = bench.stage.settings.kafka_bootstrap_servers, bench.stage.topics.changelog
    hiding = await asyncio.to_thread(transaction, kafka, "expansion", name, [(b"zz", b"")])
    begun = Position(topic_id=bench.place().topic_id, partitions=2, deployment="meterbridge", forgot_us=77)
    later = await asyncio.to_thread(transaction, kafka, "later", name, records_of(Changes(begun)))
    await asyncio.to_thread(later.commit_transaction)
    opening = asyncio.ensure_future(bench.ledger().open())
    await asyncio.wait({opening}, timeout=1)
    await asyncio.to_thread(hiding.commit_transaction)
    assert (await opening).position == begun


def delete_changelog(bench: LedgerSetup) -> None:
    """Delete the changelog and create it without records."""
    admin = AdminClient({"bootstrap.servers": bench.stage.settings.kafka_bootstrap_servers})
    name = bench.stage.topics.changelog
    for deleted in admin.delete_topics([name], operation_timeout=10 * PATIENCE).values():
        deleted.result()
    time.sleep(0.5)
    for created in admin.create_topics([NewTopic(name, 2, 1)]).values():
        created.result()


def transaction(kafka: str, name: str, topic: str, records: Iterable[tuple[bytes, bytes | None]]) -> Producer:
    """Begin a transaction, and write these records to partition 0."""
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": name})
    producer.init_transactions(10)
    producer.begin_transaction()
    for key, value in records:
        producer.produce(topic, value, key, partition=0)
    producer.flush(10 * PATIENCE)
    return producer


async def test_a_ledger_that_does_not_add_up_is_not_opened(bench: LedgerSetup) -> None:
    bench.feed(range(3))
    first = bench.ledger()
    changes = bench.changes(await first.open(), range(3))
    changes.position.counters.folded.calls += 1
    await first.commit(changes)
    with pytest.raises(LedgerBroken, match="ledger_imbalance"):
        await bench.ledger().open()
