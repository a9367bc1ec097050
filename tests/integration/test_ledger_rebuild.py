"""`meterbridge ledger rebuild`: a lost ledger is restored from the other topics, and every call is billed once."""

import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from connectors.kafka.topic_scan import offset_range_of
from connectors.operations.ledger_rebuild import rebuild
from connectors.operations.ledger_totals import positions_of
from schemas.ledger import WINDOW_PREFIX
from streams.runtime.transactions import TransactionalWriter
from tests.support.calls import raw, slp
from tests.support.command import meterbridge
from tests.support.eventually import PATIENCE
from tests.support.expanded import CENTS, GHOSTS, Growing
from tests.support.kafka import Kafka


@pytest.fixture
def growing(kafka: Kafka, topic_prefix: str) -> Growing:
    growing = Growing(kafka.bootstrap, topic_prefix, 2, 4)
    growing.clock.go()
    return growing


async def rebuilt(growing: Growing, *words: str) -> Any:
    return await meterbridge(growing.stage, "ledger", "rebuild", "--yes", "--comment", "lost", "--json", *words)


async def everything_again(growing: Growing, unsent: int = 0) -> None:
    """Usage that was sent is billed without being sent again; then all calls are sent once more: each is billed once,
    to the cent.
    """
    for ghost in GHOSTS:
        growing.stage.map(ghost, "org", "sub")
    await growing.bill(len(growing.sent) - unsent)
    assert growing.billed()[0] == len(growing.sent) - unsent
    growing.put_by_new_clients([*growing.sent.values()])
    await growing.bill(len(growing.sent))
    assert growing.billed() == (len(growing.sent), len(growing.sent) * CENTS)
    await growing.sound()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_ledger_lost_at_a_random_moment_of_a_random_history_bills_each_call_once(
    growing: Growing, seed: int
) -> None:
    dice = random.Random(seed)
    free, number = [], 0
    for _ in range(dice.randint(2, 3)):
        size = dice.randint(20, 60)
        known = growing.calls(range(number, number + size))
        held = growing.calls(range(number + 1000, number + 1000 + dice.randint(1, 9)), GHOSTS)
        at = growing.clock()
        free = [
            raw(0, slp(5000 + number + n, at_us=at, cost="0"), customer="customer-1", received_us=at) for n in range(5)
        ]
        number += size
        repeats = dice.sample([*growing.sent.values()], 10)
        records = [*known, *held, *free, *repeats]
        growing.stage.put(records)
        await growing.meter(until=len(records), sealed=dice.random() < 0.5)
        if dice.random() < 0.3:
            growing.stage.map(dice.choice(GHOSTS), "org", "sub")
    growing.stage.put(growing.calls(range(3000, 3020)))  # these are unread
    for call in free:  # a free call was reported once without its price
        n = 5000 + number - size + free.index(call)
        growing.sent[n] = raw(
            0, slp(n, at_us=call.timestamp * 1000, cost="0.5"), customer="customer-1", received_us=call.timestamp * 1000
        )
    before = growing.billed()[0]
    growing.lose_changelog()
    done = await rebuilt(growing)
    assert done.code == 0, done.out + done.err
    assert {line["state"] for line in done.json["ledgers"]} == {"ledger_missing"}
    assert growing.billed()[0] == before, "a rebuild bills nothing by itself"
    await everything_again(growing, unsent=len(free))
    lines = [line for line in growing.stage.values(growing.stage.topics.audit) if line["action"] == "ledger.rebuild"]
    assert len(lines) == 2


async def test_a_damaged_ledger_is_rebuilt_and_a_correct_one_not_changed(growing: Growing) -> None:
    growing.stage.put([*growing.calls(range(40)), *growing.calls(range(1000, 1012), GHOSTS)])
    await growing.meter(until=52)
    window = next(
        m for m in growing.stage.read(growing.stage.topics.changelog) if m.key()[:1] == WINDOW_PREFIX and m.value()
    )
    producer = Producer({"bootstrap.servers": growing.bootstrap})
    producer.produce(growing.stage.topics.changelog, None, window.key(), partition=window.partition())
    producer.flush(10 * PATIENCE)
    shown = await meterbridge(growing.stage, "ledger", "rebuild", "--json")
    states = {line["partition"]: line["state"] for line in shown.json["ledgers"]}
    assert states == {window.partition(): "ledger_imbalance", 1 - window.partition(): "sound"}, shown.err
    assert (await rebuilt(growing)).code == 0
    nothing = await rebuilt(growing)
    assert (nothing.code, "no ledger is lost or halted" in nothing.err) == (1, True), "nothing is left to do"
    await everything_again(growing)


async def test_a_rebuilt_ledger_knows_its_calls_in_every_step_of_one_life(growing: Growing) -> None:
    """The first step is what was read again; the repeats come in later ones."""
    growing.stage.put([*growing.calls(range(40)), *growing.calls(range(1000, 1012), GHOSTS)])
    await growing.meter(until=52, sealed=True)
    growing.lose_changelog()
    assert (await rebuilt(growing)).code == 0
    growing.stage.sensors.calls.clear()
    async with growing.stage.running("meter", growing.parts()):
        await growing.meter_has_counted(12)  # those that were held
        growing.put_by_new_clients([*growing.sent.values()])
        await growing.meter_has_counted(64)
    assert growing.stage.sensors.calls["duplicate"] == 52
    await everything_again(growing)


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("first", ["attempt", "success"])
async def test_what_a_failed_attempt_has_cost_is_billed_once_after_a_rebuild(
    growing: Growing, first: str, sealed: bool
) -> None:
    """The success carries the attempt; the second of the two was open when the ledger was lost, or had left it. A failed
    call that comes later, and that the success does not carry, is billed beside it.
    """
    at = growing.clock()
    of = {"litellm_call_id": "call-x", "id": "call-x"}
    lost = slp(9001, at_us=at, status="failure", cost="0.25", **of)
    success = slp(9002, at_us=at + 1, cost="0.75", carried_cost=Decimal("0.25"), litellm_call_id="call-x")
    both = [raw(0, call, customer="customer-1", received_us=at) for call in (lost, success)]
    if first == "success":
        both.reverse()
    for number, record in enumerate(both):
        growing.stage.put([record])
        await growing.meter(until=1, sealed=number == 0 or sealed)
    growing.lose_changelog()
    assert (await rebuilt(growing)).code == 0
    beside = slp(9003, at_us=at, status="failure", cost="0.125", litellm_call_id="call-x")
    growing.stage.put([*both, raw(0, beside, customer="customer-1", received_us=at)])
    growing.stage.put(growing.calls(range(1)))
    await growing.bill(3)
    assert growing.billed()[1] == Decimal("87.5") + CENTS
    await growing.sound()


@pytest.mark.parametrize("commits", [1, 2])
async def test_an_interrupted_rebuild_is_repeated_and_no_worker_uses_half_of_it(
    growing: Growing, commits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing.stage.put([*growing.calls(range(40)), *growing.calls(range(1000, 1012), GHOSTS)])
    await growing.meter(until=52, sealed=True)
    growing.lose_changelog()
    commit, left = TransactionalWriter.commit, [commits]

    async def dying(self: TransactionalWriter, *values: Any, **more: Any) -> Any:
        if not left[0]:
            raise InterruptedError
        left[0] -= 1
        return await commit(self, *values, **more)

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(TransactionalWriter, "commit", dying)
        await rebuild(growing.stage.deployment, 0, "", accept_gaps=False)
    async with growing.stage.running("meter", growing.parts()):
        await growing.halted(2)
    assert {reason for _, _, reason in growing.stage.sensors.halted} == {"ledger_missing"}
    assert (await rebuilt(growing)).code == 0
    await everything_again(growing)


async def test_a_grown_deployment_is_restored_with_what_its_ledgers_had_from_their_parents(growing: Growing) -> None:
    growing.stage.put(growing.calls(range(60)))
    await growing.meter(until=60, sealed=True)
    assert (await growing.expand("--yes")).code == 0
    growing.grown()
    growing.put_by_new_clients([*growing.calls(range(60, 100)), *growing.calls(range(1000, 1008), GHOSTS)])
    await growing.meter(until=48)
    growing.lose_changelog()
    assert (await rebuilt(growing)).code == 0
    assert {number: one.grown_from for number, one in positions_of(growing.stage.deployment).items()} == {
        0: 2,
        1: 2,
        2: 0,
        3: 0,
    }
    await everything_again(growing)


async def test_if_the_topics_no_longer_contain_everything_it_refuses_and_says_what_is_missing(
    growing: Growing,
) -> None:
    growing.stage.put([*growing.calls(range(40)), *growing.calls(range(1000, 1012), GHOSTS)])
    await growing.meter(until=52, sealed=True)
    admin = AdminClient({"bootstrap.servers": growing.bootstrap})
    for future in admin.delete_records([TopicPartition(growing.stage.topics.enriched, n, 10) for n in (0, 1)]).values():
        future.result()
    growing.lose_changelog()
    refused = await rebuilt(growing)
    assert (refused.code, "enriched calls below offset" in refused.err) == (1, True), refused.err
    assert positions_of(growing.stage.deployment) == {}
    done = await rebuilt(growing, "--accept-gaps")
    assert done.code == 0, done.err
    growing.put_by_new_clients([*growing.sent.values()])
    await growing.bill(40)
    assert growing.billed()[0] == 40, "nothing is billed twice: older calls wait for a check"


def expired_events(growing: Growing) -> None:
    """Delete the first half of the events."""
    admin, topic = AdminClient({"bootstrap.servers": growing.bootstrap}), growing.stage.topics.events
    whole = offset_range_of(growing.stage.deployment.kafka, topic).ranges
    half = [TopicPartition(topic, n, end // 2) for n, (_, end) in whole.items() if end > 1]
    for future in admin.delete_records(half).values():
        future.result()


def lost_events(growing: Growing) -> None:
    """Lose every second event, as with a partition whose disk broke: the topic begins at 0 again."""
    stage = growing.stage
    left = [message for number, message in enumerate(stage.read(stage.topics.events)) if number % 2]
    growing.lose(stage.topics.events)
    producer = Producer({"bootstrap.servers": growing.bootstrap})
    for one in left:
        producer.produce(one.topic(), one.value(), one.key(), headers=one.headers(), timestamp=one.timestamp()[1])
    producer.flush(10 * PATIENCE)


@pytest.mark.parametrize("losing", [expired_events, lost_events])
async def test_calls_whose_events_may_be_gone_are_not_billed_again(
    growing: Growing, losing: Callable[[Growing], None]
) -> None:
    """They look open. A changed mapping or setting would give their parts other names, so Lago would bill them twice."""
    growing.stage.put(growing.calls(range(40)))
    await growing.meter(until=40, sealed=True)
    losing(growing)
    left = growing.billed()
    assert 0 < left[0] < 40
    growing.lose_changelog()
    refused = await rebuilt(growing)
    assert (refused.code, "events or receipts are gone" in refused.err) == (1, True), refused.err
    done = await rebuilt(growing, "--accept-gaps")
    assert done.code == 0, done.err
    growing.put_by_new_clients([*growing.sent.values()])
    await growing.bill(left[0])
    assert growing.billed() == left


async def test_a_rebuild_is_refused_while_a_meter_runs(growing: Growing) -> None:
    growing.stage.put(growing.calls(range(12)))
    async with growing.stage.running("meter", growing.parts()):
        await growing.meter_has_counted(12)
        refused = await rebuilt(growing)
    assert (refused.code, "meter" in refused.err) == (1, True)
