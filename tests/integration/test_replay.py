"""A replay changes no bill, shows its amounts first, and continues where it stopped."""

import time
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from connectors.operations.replay import Checkpoint, Replay
from connectors.operations.sender import CommandProducer
from schemas.errors import ConfigurationError
from schemas.moments import SECOND_US, to_iso
from schemas.records import WriteOff
from streams.state.step_writes import CONTROL, WRITE_OFF
from tests.support.calls import Raw, raw, slp
from tests.support.command import meterbridge
from tests.support.eventually import PATIENCE, soon
from tests.support.stage import Stage

SINCE = ("--from", "1h", "--to", "2100-01-01")


def calls(numbers: range, customer: str = "acme", age_s: int = 0) -> list[Raw]:
    at = time.time_ns() // 1000 - age_s * SECOND_US
    return [raw(0, slp(n, at_us=at, cost="0.25"), customer=customer, received_us=at) for n in numbers]


def billed(stage: Stage) -> Decimal:
    return sum(
        (Decimal(event["precise_total_amount_cents"]) for event in stage.values(stage.topics.events)), Decimal(0)
    )


async def test_a_day_replayed_into_raw_is_billed_once(stage: Stage) -> None:
    """Keys and values are sent unchanged; each repeat is a duplicate."""
    stage.map("acme", "org", "sub")
    stage.put(calls(range(40)))
    async with stage.running("meter", stage.parts()):
        await soon(lambda: billed(stage) == 1000, limit_s=20)
        done = await meterbridge(stage, "replay", *SINCE, "--json")
        assert (done.code, done.json["records"]) == (0, 40), done.err
        await soon(lambda: stage.sensors.calls.get("duplicate") == 40, limit_s=20)
    assert billed(stage) == 1000
    sent = stage.read(stage.topics.raw)
    assert sorted((m.key(), m.value()) for m in sent[:40]) == sorted((m.key(), m.value()) for m in sent[40:])


async def test_a_dry_run_shows_calls_tokens_and_amounts_of_each_customer_and_sends_nothing(stage: Stage) -> None:
    stage.put([*calls(range(3)), *calls(range(3, 5), "beta")])
    stage.producer.produce(stage.topics.raw, b"no call", b"acme")
    stage.producer.flush(10 * PATIENCE)
    done = await meterbridge(stage, "replay", *SINCE, "--dry-run", "--json")
    assert done.json["customers"] == {
        "acme": {"calls": 3, "tokens": 66, "usd": "0.75"},
        "beta": {"calls": 2, "tokens": 44, "usd": "0.5"},
    }
    assert (done.json["calls"], done.json["usd"], done.json["unreadable"]) == (5, "1.25", 1)
    assert len(stage.read(stage.topics.raw)) == 6
    assert stage.read(stage.topics.audit) == []


async def test_only_the_selected_time_and_customer_are_sent_again(stage: Stage) -> None:
    stage.put([*calls(range(2), age_s=7200), *calls(range(2, 5)), *calls(range(5, 9), "beta")])
    done = await meterbridge(stage, "replay", *SINCE, "--customer", "acme", "--json")
    assert done.json["records"] == 3


async def test_a_customer_without_calls_is_named(stage: Stage) -> None:
    """Earlier a replay of a misspelt customer "sent 0 records"."""
    assert (await meterbridge(stage, "replay", *SINCE)).out == "There is no call in this time.\n"
    stage.put([*calls(range(2)), *calls(range(2, 4), "beta")])
    for more in ((), ("--dry-run",)):
        done = await meterbridge(stage, "replay", *SINCE, "--customer", "acmee", *more)
        sentence = "There is no call of 'acmee' in this time; 2 other customers have some: did you mean acme?\n"
        assert (done.code, done.out) == (0, sentence), done.err


async def test_enriched_calls_go_to_another_topic_without_an_effect_on_billing(stage: Stage, topic_prefix: str) -> None:
    mine = f"{topic_prefix}warehouse"
    admin = AdminClient({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    admin.create_topics([NewTopic(mine, 1, 1)])[mine].result()
    stage.map("acme", "org", "sub")
    stage.put(calls(range(7)))
    async with stage.running("meter", stage.parts()):
        await soon(lambda: len(stage.values(stage.topics.enriched)) == 7, limit_s=20)
        done = await meterbridge(stage, "replay", *SINCE, "--target-topic", mine, "--json")
        assert done.json["records"] == 7
    assert sorted(m.value() for m in stage.read(mine)) == sorted(m.value() for m in stage.read(stage.topics.enriched))
    assert len(stage.read(stage.topics.raw)) == 7


async def test_a_topic_of_the_products_own_is_refused(stage: Stage) -> None:
    done = await meterbridge(stage, "replay", *SINCE, "--target-topic", stage.topics.events)
    assert done.code == 2
    assert "topic of your own" in done.err


async def test_a_topic_that_does_not_exist_is_refused(stage: Stage) -> None:
    done = await meterbridge(stage, "replay", *SINCE, "--target-topic", "nowhere")
    assert (done.code, "nowhere does not exist" in done.err) == (1, True)


async def test_an_operators_order_among_the_calls_is_not_repeated(stage: Stage) -> None:
    stage.put(calls(range(2)))
    order = msgspec.json.encode(WriteOff("audit-1", 1, 0))
    stage.producer.produce(stage.topics.raw, order, b"acme", headers=[(CONTROL, WRITE_OFF)])
    stage.producer.flush(10 * PATIENCE)
    assert (await meterbridge(stage, "replay", *SINCE, "--json")).json["records"] == 2


async def test_a_replay_is_in_the_audit_log_before_it_starts(stage: Stage) -> None:
    stage.put(calls(range(2)))
    await meterbridge(stage, "replay", *SINCE, "--customer", "acme", "--comment", "lost warehouse")
    (line,) = stage.values(stage.topics.audit)
    assert (line["action"], line["reason"], line["target"]["customer"]) == ("replay", "lost warehouse", "acme")
    assert "@" in line["actor"]


class LosesKafka(CommandProducer):
    """Kafka becomes unavailable after the first batch."""

    batches = 0

    def send(self, *arguments: object, **more: object) -> int:
        self.batches += 1
        if self.batches > 1:
            raise ConnectionError
        return super().send(*arguments, **more)  # type: ignore[arg-type]


async def test_an_interrupted_replay_continues_where_it_stopped(stage: Stage, tmp_path: Path) -> None:
    """Everything arrives, and nothing that was acknowledged is sent again."""
    stage.put(calls(range(4500)))
    file, until = tmp_path / "state", time.time_ns() // 1_000_000 + 1
    planned = Replay.planned(stage.deployment, 0, until)
    with pytest.raises(ConnectionError):
        planned.run(LosesKafka(stage.connection), file)
    assert len(stage.read(stage.topics.raw)) == 4500 + 2000
    since, to = to_iso(0), to_iso(until * 1000)
    again = await meterbridge(stage, "replay", "--from", since, "--to", to, "--checkpoint", str(file), "--json")
    assert (again.code, again.json["records"]) == (0, 2500), again.err
    assert len({m.value() for m in stage.read(stage.topics.raw)[4500:]}) == 4500
    assert not file.exists()


async def test_another_replays_checkpoint_is_refused(stage: Stage, tmp_path: Path) -> None:
    stage.put(calls(range(1)))
    file = tmp_path / "state"
    file.write_bytes(msgspec.json.encode(Checkpoint({"source": "x"}, {0: 5})))
    with pytest.raises(ConfigurationError):
        Replay.planned(stage.deployment, 0, 1).run(CommandProducer(stage.connection), file)
