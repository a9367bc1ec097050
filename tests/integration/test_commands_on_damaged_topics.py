"""Commands that read topics in which another program has written: they leave out what they cannot read, and name it."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import Producer

from schemas.ledger import POSITION_KEY
from streams.core.delivery.dead_letter_headers import ATTEMPTS, REQUEUED, RESOLVES
from streams.state.step_writes import MANIFEST, RAW_PARTITION, SEAL_SEQ
from tests.faults.vandal import Vandal
from tests.integration.test_ledger_rebuild import everything_again, rebuilt
from tests.support.command import meterbridge
from tests.support.eventually import PATIENCE
from tests.support.expanded import GHOSTS, NAMES, Growing
from tests.support.kafka import Kafka

#: A digit for `str.isdigit`, and no number for `int`.
SQUARED = "²".encode()
OURS = [(RAW_PARTITION, b"0"), (SEAL_SEQ, b"7"), (MANIFEST, b"{}")]
#: Every command that reads a whole topic and needs no Postgres.
READERS = (
    "dlq list",
    "dlq requeue --kind events --dry-run",
    "dlq dismiss --until 0s --dry-run",
    "reconcile",
    "held list",
    "replay --from 1h --to 0s --dry-run",
    "rates show",
    "audit verify",
    "ledger rebuild --dry-run",
    "ledger init --from earliest --dry-run",
    "topics expand --partitions 4 --dry-run",
)


@pytest.fixture
def growing(kafka: Kafka, topic_prefix: str) -> Growing:
    growing = Growing(kafka.bootstrap, topic_prefix, 2, 4)
    growing.clock.go()
    return growing


def put(
    growing: Growing,
    topic: str,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]] = (),
    key: bytes = b"vandal",
    partition: int = 0,
) -> None:
    producer = Producer({"bootstrap.servers": growing.bootstrap})
    producer.produce(topic, value, key, headers=list(headers), partition=partition)
    producer.flush(10 * PATIENCE)


def amount(growing: Growing, cents: str) -> bytes:
    """An event of ours with another amount."""
    value = json.loads(growing.stage.read(growing.stage.topics.events)[0].value())
    return json.dumps({**value, "precise_total_amount_cents": cents}).encode()


async def test_a_lost_ledger_is_rebuilt_although_other_topics_have_records_that_cannot_be_read(
    growing: Growing,
) -> None:
    """A person must say so: one of the records may have been a call that was counted, or its event."""
    growing.stage.put([*growing.calls(range(40)), *growing.calls(range(1000, 1012), GHOSTS)])
    await growing.meter(until=52, sealed=True)
    growing.lose_changelog()
    topics = growing.stage.topics
    for partition in (0, 1):
        put(growing, topics.enriched, b"{", partition=partition)
        bad = {"offset": 1, "decision": "billable", "end": "yesterday", "cost_usd": "NaN"}
        put(growing, topics.enriched, json.dumps(bad).encode(), partition=partition)
    nothing = {"precise_total_amount_cents": "0", "properties": {"requests": "0"}}
    put(growing, topics.events, json.dumps(nothing).encode(), OURS)
    foreign = {"transaction_id": "x", "external_subscription_id": "x", "code": "x", "timestamp": "1"}
    put(growing, topics.events, json.dumps(foreign | nothing).encode(), OURS)
    put(growing, topics.receipts, b"\xff")
    put(growing, topics.receipts, None)
    for target in ({}, {"from": "0", "to": "2"}, {"from": "²", "to": "2"}):
        line = {"id": "a", "at": 1, "actor": "x", "action": "topics.expand", "target": target}
        put(growing, topics.audit, json.dumps(line).encode())
    shown = await meterbridge(growing.stage, "ledger", "rebuild", "--json")
    assert shown.code == 1, shown.err
    gaps = [line["gaps"] for line in shown.json["ledgers"]]
    for topic in (topics.enriched, topics.receipts):
        assert all(f"2 records of {topic} cannot be read" in gap for gap in gaps)
    assert [f"2 records of {topics.events} cannot be read" in gap for gap in gaps] == [True, False]
    refused = await rebuilt(growing)
    assert (refused.code, "cannot be read" in refused.err, "Traceback" in refused.err) == (1, True, False)
    assert (await rebuilt(growing, "--accept-gaps")).code == 0
    await everything_again(growing)


async def test_reconcile_names_the_records_that_it_cannot_read_and_compares_all_others(growing: Growing) -> None:
    growing.stage.put(growing.calls(range(20)))
    await growing.meter(until=20, sealed=True)
    put(growing, growing.stage.topics.events, b"{", OURS)
    put(growing, growing.stage.topics.events, amount(growing, "1e99"), OURS)
    put(growing, growing.stage.topics.events, amount(growing, "1"), [(RAW_PARTITION, b"0"), (SEAL_SEQ, SQUARED)])
    done = await meterbridge(growing.stage, "reconcile", "--json")
    assert (done.code, done.json["billed_calls"], done.json["complaints"]) == (0, 20, []), done.err
    (note,) = [note for note in done.json["notes"] if "cannot be read" in note]
    assert note.startswith(f"2 records of {growing.stage.topics.events} cannot be read, one of them at partition 0, ")


@pytest.mark.parametrize("kind", ["events", "calls"])
async def test_dead_letters_are_listed_although_a_header_or_an_amount_is_no_number(growing: Growing, kind: str) -> None:
    growing.stage.put(growing.calls(range(1)))
    await growing.meter(until=1, sealed=True)
    topics = growing.stage.topics
    topic = topics.dlq if kind == "events" else topics.rejected
    put(growing, topic, b"{}", [(RESOLVES, SQUARED)])
    put(growing, topic, b"{}", [(ATTEMPTS, SQUARED), (REQUEUED, b"9" * 5000)])
    for cents in ("1e40", "1e-40", "NaN", "Infinity", "9" * 40, f"0.{'1' * 40}"):
        put(growing, topic, amount(growing, cents))
    done = await meterbridge(growing.stage, "dlq", "list", "--kind", kind, "--json")
    assert done.code == 0, done.err
    assert done.json["count"] == 7 and {one["attempts"] for one in done.json["dead_letters"]} == {0}


async def test_a_damaged_position_of_a_ledger_is_named_in_one_sentence(growing: Growing) -> None:
    put(growing, growing.stage.topics.changelog, b"\xff", key=POSITION_KEY)
    done = await meterbridge(growing.stage, "topics", "expand", "--partitions", "4")
    assert (done.code, "Traceback" in done.err) == (1, False)
    assert "the ledger of partition 0 cannot be read: `meterbridge ledger rebuild`" in done.err


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_command_shows_a_traceback_after_random_damage_in_every_topic(growing: Growing, seed: int) -> None:
    growing.stage.put(growing.calls(range(10)))
    await growing.meter(until=10, sealed=True)
    vandal = Vandal(growing.bootstrap, growing.stage.topics, seed, NAMES)
    for _ in range(20):
        vandal.write(10)
    vandal.close()
    told: dict[str, Any] = {}
    for words in READERS:
        done = await meterbridge(growing.stage, *words.split())
        if "Traceback" in done.err or done.code not in (0, 1):
            told[words] = (done.code, done.err[-400:])
    assert told == {}
