"""Every billed cent is explained by its calls, and differences are found."""

import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, cast

import msgspec
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from connectors.kafka.admin import create_topics
from connectors.operations.pipeline_counts import PipelineCounts
from schemas.money import plain
from streams.core.delivery.dead_letter_headers import MAYBE_SENT, REASON
from tests.support.billed_day import METRIC, BilledDay, calls, lago_of_org_a
from tests.support.calls import raw, slp
from tests.support.command import meterbridge
from tests.support.eventually import PATIENCE, soon
from tests.support.posting import statuses
from tests.support.sandbox import Lago
from tests.support.stage import Stage
from tests.support.values import topics_of


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_of_org_a() as sandbox:
        yield sandbox


async def billed(day: BilledDay) -> None:
    """Thirty billed calls, five of them held at first, and two unbilled ones."""
    late = calls(range(25, 30), "late", cost="0.013")
    unpriced = calls(range(30, 32), "acme", cost="0")
    await day.bill([*calls(range(25), "acme", cost="0.013"), *late, *unpriced], 30)


@pytest.fixture
async def world(stage: Stage, database: str, lago: Lago) -> BilledDay:
    day = BilledDay(stage, database, lago)
    await billed(day)
    return day


async def test_every_billed_cent_is_explained_by_its_calls(world: BilledDay) -> None:
    """Also calls that were held and released into an event of another window."""
    found, cents = 0, Decimal(0)
    for transaction_id in statuses(world.stage):
        result = await world.run("explain", transaction_id)
        assert (result.code, result.json["proved"], result.json["status"]) == (0, True, "completed"), result.err
        found += result.json["calls_found"]
        cents += Decimal(result.json["amount_cents"])
    assert (found, cents) == (30, Decimal(39))


async def test_a_call_shows_its_event_and_receipt(world: BilledDay) -> None:
    (one,) = (await world.run("explain", "--request", "chatcmpl-27")).json["calls"]
    assert (one["customer"], one["event"]["status"], one["event"]["proved"]) == ("late", "completed", True)
    assert (await world.run("explain", "--request", "call-27")).json["calls"] == [one]
    assert (await world.run("explain", "--request", one["identity"])).json["calls"] == [one]
    (free,) = (await world.run("explain", "--request", "chatcmpl-31")).json["calls"]
    assert (free["decision"], free["event"]) == ("unpriced", None)
    assert (await world.run("explain", "--request", "nobody")).code == 1


async def test_a_customers_question_is_answered_without_sql(world: BilledDay) -> None:
    """For example: why was I billed 0.012 USD at 10:03?"""
    for principal in ("acme", "org-a"):
        result = await world.run("explain", "--customer", principal, "--at", "0s", "--usd", "0.013", "--around", "15m")
        assert result.code == 0, result.err
        assert len(result.json["calls"]) == (25 if principal == "acme" else 30), result.out
        one = result.json["calls"][0]
        assert (one["tokens_input"], one["tokens_output"], one["usd"]) == (10, 12, "0.013")
        assert one["event"] in statuses(world.stage) and one["part"]
        assert {event["status"] for event in result.json["events"]} == {"completed"}
    whole = await world.run("explain", "--customer", "acme", "--at", "0s", "--around", "15m")
    assert [one["event"] for one in whole.json["calls"]].count(None) == 2
    assert (await world.run("explain", "--customer", "acme", "--at", "2h")).code == 1
    assert (await world.run("explain", "--customer", "acme")).code == 2


async def test_a_customer_that_is_not_known_is_named(world: BilledDay) -> None:
    """Earlier a misspelt customer had "no call" at that time."""
    result = await world.run("explain", "--customer", "acmee", "--at", "0s")
    assert result.code == 1 and "no customer and no org 'acmee' is known: " in result.err, result.err
    result = await world.run("explain", "--customer", "acme", "--at", "2h")
    assert "no call of acme ended from " in result.err


async def test_unbilled_calls_are_shown_even_if_the_sum_is_right(world: BilledDay) -> None:
    result = await world.run("reconcile")
    assert (result.code, result.json["adds_up"], result.json["unbilled_calls"]) == (0, True, 2)
    assert result.json["unbilled"] == {
        "unpriced": {"calls": 2, "usd": "0", "tokens": 44, "models": {"openai/gpt-4o": 2}}
    }
    said = (await meterbridge(world.stage, "reconcile", DATABASE_URL=world.database)).out
    assert "2 calls NOT billed" in said and "not billed, unpriced: 2 calls" in said
    alone = (await meterbridge(world.stage, "reconcile")).out
    assert "2 calls NOT billed" in alone


async def test_an_event_with_missing_calls_is_not_verified(world: BilledDay) -> None:
    await world.tamper("DELETE FROM llm_usage_log WHERE request_id = 'chatcmpl-3'")
    result = [await world.run("explain", one) for one in statuses(world.stage)]
    assert sorted(one.json["proved"] for one in result).count(False) == 1
    assert {one.code for one in result if not one.json["proved"]} == {1}


async def test_billed_usage_agrees_with_ledgers_events_and_lago(world: BilledDay) -> None:
    result = await world.run("reconcile", "--lago")
    assert result.code == 0, result.out + result.err
    assert (result.json["billed_calls"], result.json["billed_usd"], result.json["subscriptions"]) == (30, "0.39", 1)
    assert result.json["complaints"] == []


async def test_parts_that_have_expired_in_the_topic_are_verified_by_the_tables(world: BilledDay) -> None:
    """The topic keeps 30 days; earlier a cent lost after that was never found."""
    ends = {one.partition(): one.offset() for one in world.stage.read(world.stage.topics.events)}
    admin = AdminClient({"bootstrap.servers": world.stage.settings.kafka_bootstrap_servers})
    places = [TopicPartition(world.stage.topics.events, number, end + 1) for number, end in ends.items()]
    for future in admin.delete_records(places).values():
        future.result()
    assert (await world.run("reconcile")).json["complaints"] == []
    await world.tamper("UPDATE usage_parts SET amount_cents = amount_cents + 1 WHERE event IS NOT NULL AND calls = 25")
    result = await world.run("reconcile")
    assert (result.code, len(result.json["complaints"])) == (1, 1)
    assert "were sealed, events hold" in result.json["complaints"][0]
    shown = (await meterbridge(world.stage, "reconcile", DATABASE_URL=world.database)).out.splitlines()
    assert shown[0] == "It does NOT add up:" and any(line.startswith("In all: ") for line in shown)


async def test_a_part_that_expired_before_an_older_one_in_another_partition_is_not_missing(
    stage: Stage, database: str, lago: Lago
) -> None:
    """Kafka deletes whole segments, and those of each partition begin at another time."""
    world, now_us = BilledDay(stage, database, lago), time.time_ns() // 1000
    minutes = [now_us - 600_000_000, now_us - 300_000_000, now_us]
    day = [raw(0, slp(n, at_us=at, cost="0.013"), customer="acme", received_us=at) for n, at in enumerate(minutes)]
    await world.bill(day, 3)
    topic, producer = world.stage.topics.events, world.stage.producer
    events = sorted(world.stage.read(topic), key=lambda one: int(dict(one.headers() or [])["seal_seq"]))
    first, place = events[0], events[0].partition()
    other = (place + 1) % 2
    at_ms = first.timestamp()[1] - 31 * 86_400_000
    producer.produce(topic, first.value(), first.key(), partition=other, headers=first.headers(), timestamp=at_ms)
    producer.produce(topic, b"{}", b"later", partition=place)  # an event of another ledger
    producer.flush(10 * PATIENCE)
    ends = {one.partition(): one.offset() for one in world.stage.read(topic)}
    admin = AdminClient({"bootstrap.servers": world.stage.settings.kafka_bootstrap_servers})
    for future in admin.delete_records([TopicPartition(topic, place, ends[place])]).values():
        future.result()
    result = await world.run("reconcile")
    assert (result.code, result.json["complaints"]) == (0, []), result.out
    assert not [note for note in result.json["notes"] if "not compared" in note]


async def test_an_event_that_is_too_young_to_have_expired_is_missing(stage: Stage, database: str, lago: Lago) -> None:
    """The first record of a quiet partition may be of yesterday, although Kafka has deleted only records of last month."""
    world, now_us = BilledDay(stage, database, lago), time.time_ns() // 1000
    minutes = [now_us - 600_000_000, now_us - 300_000_000, now_us]
    day = [raw(0, slp(n, at_us=at, cost="0.013"), customer="acme", received_us=at) for n, at in enumerate(minutes)]
    await world.bill(day, 3)
    topic, producer = world.stage.topics.events, world.stage.producer
    first, lost, last = sorted(world.stage.read(topic), key=lambda one: int(dict(one.headers() or [])["seal_seq"]))
    place, quiet = lost.partition(), (lost.partition() + 1) % 2
    for event in (first, last):
        producer.produce(topic, event.value(), event.key(), partition=place, headers=event.headers())
    for _ in range(2):
        producer.produce(topic, b"{}", b"another", partition=quiet)
    producer.flush(10 * PATIENCE)
    admin = AdminClient({"bootstrap.servers": world.stage.settings.kafka_bootstrap_servers})
    for future in admin.delete_records([TopicPartition(topic, place, 3), TopicPartition(topic, quiet, 1)]).values():
        future.result()
    result = await world.run("reconcile")
    assert (result.code, len(result.json["complaints"])) == (1, 1), result.out
    assert "1 parts between 1 and 3 are missing" in result.json["complaints"][0]


async def test_a_ledger_that_was_rebuilt_after_old_events_had_expired_adds_up(
    stage: Stage, database: str, lago: Lago
) -> None:
    """Its sums begin with the first event that is still in the topic; the tables have all."""
    world, topics, now_us = BilledDay(stage, database, lago), stage.topics, time.time_ns() // 1000
    minutes = [now_us - 60_000_000 * minute for minute in (20, 15, 10, 0)]
    day = [raw(0, slp(n, at_us=at, cost="0.013"), customer="acme", received_us=at) for n, at in enumerate(minutes)]
    await world.bill(day[:2], 2)
    admin = AdminClient({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    for topic in (topics.raw, topics.enriched, topics.events, topics.receipts):
        ends = {one.partition(): one.offset() for one in stage.read(topic)}
        for future in admin.delete_records([TopicPartition(topic, *place) for place in ends.items()]).values():
            future.result()
    await world.bill(day, 4)
    admin.delete_topics([topics.changelog])[topics.changelog].result()
    await soon(lambda: topics.changelog not in admin.list_topics(timeout=10 * PATIENCE).topics)
    create_topics(*topics_of(stage.settings))
    done = await world.run("ledger", "rebuild", "--yes", "--accept-gaps", "--comment", "lost")
    assert done.code == 0, done.out + done.err
    result = await world.run("reconcile")
    assert (result.code, result.json["complaints"]) == (0, []), result.out


async def test_an_event_lost_by_lago_or_sent_by_another_program_is_found(world: BilledDay) -> None:
    event = {
        "transaction_id": "foreign",
        "external_subscription_id": "sub-a",
        "code": METRIC,
        "timestamp": str(int(time.time())),
        "precise_total_amount_cents": "7",
        "properties": {"unit": "1"},
    }
    assert (await world.lago.post(event)).status_code == 200
    result = await world.run("reconcile", "--lago")
    assert result.code == 1
    assert "sub-a: Lago counts 46 cents" in result.json["complaints"][0]


@pytest.mark.parametrize(
    ("status", "reason", "may_count"),
    [
        ("processing", "http_503", True),
        ("failed", "unbillable_invalid_code", True),  # Lago has it, and bills it once there is such a metric
        ("failed", "timeout", True),  # a dead letter whose post Lago did not answer: it may have it
        ("failed", "http_500", True),
        ("failed", "lago_refused", False),
        ("failed", "unbillable_ended", False),  # billed again by another event
    ],
)
async def test_an_event_that_lago_must_not_count_excuses_no_difference(
    world: BilledDay, status: str, reason: str, may_count: bool
) -> None:
    """Earlier a dead letter of the same amount hid usage that Lago counted twice."""
    await world.tamper(
        f"UPDATE usage_parts SET status = '{status}', reason = '{reason}' "
        "WHERE part = (SELECT max(transaction_id) FROM lago_events)"
    )
    result = await world.run("reconcile", "--lago")
    assert result.code == (0 if may_count else 1), result.out
    complaints = result.json["complaints"]
    assert complaints == [] if may_count else "sub-a: Lago counts 39 cents" in complaints[0]


async def test_events_that_wait_as_dead_letters_are_named_with_their_money(world: BilledDay) -> None:
    """Earlier `reconcile` said that all adds up, and nothing of money that no invoice will have."""
    topics, producer = world.stage.topics, world.stage.producer
    dead, dismissed = world.stage.read(topics.events)[:2]
    doubtful = [[(REASON, b"unconfirmed"), (MAYBE_SENT, b"0")], [(REASON, b"http_429"), (MAYBE_SENT, b"1")]]
    refused, unsent = ([(REASON, reason), (MAYBE_SENT, b"0")] for reason in (b"lago_refused", b"http_409"))
    of_dead = [refused, unsent, *doubtful, [(REASON, b"http_409")]]
    for event, headers in ((dead, of_dead[0]), (dismissed, refused), *((dead, one) for one in of_dead[1:])):
        producer.produce(topics.dlq, event.value(), event.key(), headers=headers, partition=0)
    producer.flush(10 * PATIENCE)
    gone = await world.run("dlq", "dismiss", "--id", "events/0/1", "--comment", "never")
    assert gone.code == 0, gone.err
    usd = Decimal(msgspec.json.decode(dead.value())["precise_total_amount_cents"]) / 100
    result = await world.run("reconcile")
    assert (result.code, result.json["dead_events"], Decimal(result.json["dead_usd"])) == (0, 2, 2 * usd)
    assert (result.json["doubtful_events"], Decimal(result.json["doubtful_usd"])) == (3, 3 * usd)
    note, of_doubtful = [note for note in result.json["notes"] if "dead" in note]
    assert note == f"not billed, dead letters: 2 events, {plain(2 * usd)} USD: `meterbridge dlq list`"
    assert of_doubtful.startswith(f"dead letters that Lago may have, and then bills: 3 events, {plain(3 * usd)} USD: ")


async def test_after_a_normal_end_everything_still_agrees(world: BilledDay) -> None:
    """The last invoice is compared; earlier an ended subscription was reported forever."""
    await world.lago.http.delete("/api/v1/subscriptions/sub-a")
    result = await world.run("reconcile", "--lago")
    assert (result.code, result.json["complaints"], result.json["subscriptions"]) == (0, [], 1), result.out


async def test_usage_that_arrived_after_its_end_is_reported(world: BilledDay) -> None:
    await world.lago.http.delete("/api/v1/subscriptions/sub-a")
    await world.tamper("UPDATE usage_parts SET posted_at = now() + interval '1 hour'")
    result = await world.run("reconcile", "--lago")
    assert result.code == 1
    assert "39 cents were delivered to it with a moment after its end" in result.json["complaints"][0]
    await world.tamper("UPDATE usage_parts SET posted_at = NULL, amount_cents = amount_cents + 1")
    [complaint] = (await world.run("reconcile", "--lago")).json["complaints"]
    assert "its last invoice counts 39 cents" in complaint


async def test_an_org_that_lago_cannot_be_asked_about_does_not_end_the_comparison(world: BilledDay) -> None:
    """In Lago's paths a dot ends a customer's id."""
    change = "UPDATE usage_parts SET org_id = 'a.b', external_subscription_id = 'odd', posted_to = NULL"
    await world.tamper(f"{change} WHERE part = (SELECT max(transaction_id) FROM lago_events)")
    result = await world.run("reconcile", "--lago")
    assert result.code == 1
    assert [one.split(" ")[1] for one in result.json["complaints"]] == ["odd", "sub-a:"]
    assert "unsafe_id" in result.json["complaints"][0]


async def test_a_subscription_that_lago_does_not_have_is_reported(world: BilledDay) -> None:
    await world.tamper("UPDATE usage_parts SET external_subscription_id = 'typo', posted_to = NULL")
    [complaint] = (await world.run("reconcile", "--lago")).json["complaints"]
    assert complaint == "Lago has no subscription typo for org-a, 39 cents were delivered to it"


async def test_an_event_that_is_in_the_topic_twice_is_found(world: BilledDay) -> None:
    """A torn transaction would look like this: Kafka's older protocol does not exclude it."""
    event = world.stage.read(world.stage.topics.events)[0]
    world.stage.producer.produce(world.stage.topics.events, event.value(), event.key(), headers=event.headers())
    world.stage.producer.flush(10 * PATIENCE)
    result = await world.run("reconcile")
    assert (result.code, "emitted twice" in result.json["complaints"][0]) == (1, True)


async def test_an_attempt_that_is_billed_with_the_call_after_it_is_not_unbilled(stage: Stage) -> None:
    at_us = time.time_ns() // 1000
    success = slp(2, at_us=at_us, cost="0.0055", carried_cost=Decimal("0.001"), litellm_call_id="one")
    attempt = slp(1, at_us=at_us - 3_000_000, status="failure", cost="0.001", litellm_call_id="one")
    stage.put([raw(0, one, customer="acme", received_us=at_us) for one in (success, attempt)])
    async with stage.running("meter", stage.parts()):
        await soon(lambda: stage.sensors.calls.get("carried") == 1, limit_s=20)
    result = (await meterbridge(stage, "reconcile", "--json")).json
    assert (result["unbilled_calls"], result["unbilled_usd"]) == (0, "0")
    assert (result["carried_calls"], result["carried_usd"]) == (1, "0.001")
    said = (await meterbridge(stage, "reconcile")).out
    assert "0 calls NOT billed (0 USD), 0 repeats, 1 failed attempt billed with the call after it (0.001 USD)" in said
    stats = PipelineCounts(stage.deployment, 1, cast("Any", None), cast("Any", None))._ask()
    assert (stats["accepted"], stats["unbilled"], stats["carried"]) == (2, 0, 1)


async def test_without_postgres_only_the_ledgers_are_compared(stage: Stage) -> None:
    stage.put(calls(range(3), "ghost", cost="0.013"))
    async with stage.running("meter", stage.parts()):
        await soon(lambda: stage.sensors.calls.get("billable") == 3, limit_s=20)
    result = await meterbridge(stage, "reconcile", "--json")
    assert (result.code, result.json["held_usd"]) == (0, "0.039")
    assert (await meterbridge(stage, "explain", "x")).code == 2
