"""Outgoing webhooks: every event is sent at least once with one id, and an unavailable endpoint costs little."""

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from msgspec.json import decode
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from connectors.cli.main import app
from connectors.operations.outgoing_webhooks import announcements
from connectors.postgres.pool import Database
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.worker_sensors import WorkerSensors
from schemas.errors import Unavailable
from schemas.generate import FOLDER
from tests.support.database import rows
from tests.support.eventually import PATIENCE
from tests.support.webhook_receiver import SECRET, Receiver, Seen, task_of, webhook_receiver

SCHEMAS = {"usage.held": "HeldUsageMessage", "usage.dead_letter": "DeadLetterMessage", "webhook.test": "TestWebhook"}
HELD = """
INSERT INTO usage_parts (part, held_customer_id, held_calls, held_cost_usd, held_reason, held_since)
VALUES ($1, $2, 3, $3::text::numeric, 'no_mapping', '2026-11-20Z')
"""
DEAD = """
INSERT INTO usage_parts (part, event, external_subscription_id, org_id, amount_cents, calls, status, attempts, reason, processed_at)
VALUES ($1, '{}', 'sub', 'org', 1.5, 2, 'failed', 4, 'http_422', now())
"""
#: As if this much time had passed.
LATER = "UPDATE outgoing_webhooks SET due_at = due_at - make_interval(secs => $1), created_at = created_at - make_interval(secs => $1)"
FAILING = "UPDATE webhook_endpoints SET failing_since = failing_since - make_interval(secs => $1)"
DAY_S = 86_400


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with webhook_receiver() as running:
        yield running


async def later(url: str, seconds: float) -> None:
    await rows(url, LATER, seconds)
    await rows(url, FAILING, seconds)


async def once(url: str, *endpoints: str, **rules: Any) -> Seen:
    seen = Seen()
    with Database(url, size=1) as database:
        await task_of(database, *endpoints, seen=seen, **rules).once()
    return seen


async def balance(url: str, usd: str) -> None:
    statement = "INSERT INTO user_credits (user_id, balance) VALUES ('ada', $1::text::numeric) ON CONFLICT (user_id) DO UPDATE SET balance = $1::text::numeric"
    await rows(url, statement, usd)


async def test_held_usage_is_announced_at_first_after_growth_and_again_after_a_release(
    database: str, receiver: Receiver
) -> None:
    await rows(database, HELD, "p1", "acme", "0.5")
    for _ in range(2):
        await once(database, receiver.url)
    assert [message["data"]["first"] for _, message in receiver.messages] == [True]
    await rows(database, HELD, "p2", "acme", "99.50")
    for _ in range(2):
        await once(database, receiver.url)
    _, grown = receiver.messages[1]
    assert grown["data"] == {
        "customer_id": "acme",
        "reason": "no_mapping",
        "calls": 6,
        "cost_usd": "100.00",
        "since": "2026-11-20T00:00:00Z",
        "first": False,
    }
    await rows(database, "UPDATE usage_parts SET released_in = 'e'")
    await once(database, receiver.url)
    await rows(database, HELD, "p3", "acme", "1")
    await once(database, receiver.url)
    assert [message["data"]["first"] for _, message in receiver.messages] == [True, False, True]


async def test_a_dead_letter_is_announced_once_each_time_that_it_fails(database: str, receiver: Receiver) -> None:
    await rows(database, DEAD, "e1")
    for _ in range(2):
        await once(database, receiver.url)
    assert receiver.types() == ["usage.dead_letter"]
    assert receiver.messages[0][1]["data"]["reason"] == "http_422"
    await rows(database, "UPDATE usage_parts SET status = 'completed'")
    await once(database, receiver.url)
    fact = "status = 'failed', processed_at = now() + interval '1 hour', maybe_sent = false, maybe_sent_at = now() + interval '1 hour'"
    await rows(database, f"UPDATE usage_parts SET {fact}")
    await once(database, receiver.url)
    assert receiver.types() == ["usage.dead_letter"] * 2
    assert [message["data"]["may_be_in_lago"] for _, message in receiver.messages] == [True, False]
    await rows(database, "UPDATE usage_parts SET status = 'written_off'")
    await once(database, receiver.url)
    assert len(receiver.messages) == 2


async def test_credits_are_announced_when_they_become_low_are_used_up_and_recharged(
    database: str, receiver: Receiver
) -> None:
    for usd in ("20", "20", "4.99", "3", "0", "2", "50"):
        await balance(database, usd)
        await once(database, receiver.url)
    result = [(message["type"], message["data"]["state"]) for _, message in receiver.messages]
    assert result == [
        ("credits.low", "low"),
        ("credits.used_up", "used_up"),
        ("credits.recharged", "low"),
        ("credits.recharged", "ok"),
    ]


async def test_account_states_are_stored_at_once_even_if_announcements_take_several_looks(
    database: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcements, "MOST", 1)
    await rows(database, "INSERT INTO user_credits (user_id, balance) SELECT 'u' || n, 20 FROM generate_series(1, 5) n")
    await once(database, receiver.url)
    await rows(database, "UPDATE user_credits SET balance = 0")
    for _ in range(5):
        await once(database, receiver.url)
    assert receiver.types() == ["credits.used_up"] * 5


async def test_a_process_gets_only_the_rows_that_differ(
    database: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def counted(original: Any) -> Any:
        def changes_of(self: Any, found: list[Any]) -> Any:
            read.append(len(found))
            return original(self, found)

        return changes_of

    for name in ("_held", "_dead", "_balances"):
        monkeypatch.setattr(announcements.Announcements, name, counted(getattr(announcements.Announcements, name)))
    for number in range(3):
        await rows(database, HELD, f"p{number}", f"c{number}", "150")
        await rows(database, DEAD, f"e{number}")
    await balance(database, "20")
    await once(database, receiver.url)
    assert read == [3, 3, 0]
    await rows(database, HELD, "p4", "c1", "50")  # doubled its bound
    await rows(database, HELD, "p5", "c2", "49")  # not yet
    await once(database, receiver.url)
    assert read[3:] == [1, 0, 0]


async def test_due_messages_are_sent_even_if_looking_fails(
    database: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rows(database, DEAD, "e1")
    receiver.status = 503
    await once(database, receiver.url)
    await later(database, 600)

    async def slow(*_: object) -> int:
        raise Unavailable("postgres_slow", "")

    monkeypatch.setattr(announcements.Announcements, "look", slow)
    with pytest.raises(Unavailable):
        await once(database, receiver.url)
    assert len(receiver.messages) == 2


async def test_looks_take_a_twentieth_of_the_time(database: str, receiver: Receiver) -> None:
    now_s, looked = 100.0, []

    class Slow(announcements.Announcements):
        async def look(self, database: Database) -> int:
            nonlocal now_s
            looked.append(now_s)
            now_s += 2
            return 0

    with Database(database, size=1) as pool:
        task = task_of(pool, receiver.url)
        task.announcements, task.monotonic = Slow([]), lambda: now_s
        for _ in range(20):
            await task.once()
            now_s += 5
    assert [round(after - before) for before, after in pairwise(looked)] == [42, 42]


async def test_every_message_fits_its_schema(database: str, receiver: Receiver) -> None:
    await rows(database, HELD, "p1", "acme", "0.5")
    await rows(database, DEAD, "e1")
    for usd in ("20", "1"):
        await balance(database, usd)
        await once(database, receiver.url)
    assert set(receiver.types()) == {"usage.held", "usage.dead_letter", "credits.low"}
    for _, message in receiver.messages:
        name = SCHEMAS.get(message["type"], "BalanceMessage")
        Draft202012Validator(decode((FOLDER / f"{name}.schema.json").read_bytes())).validate(message)


async def test_only_the_configured_events_are_announced(database: str, receiver: Receiver) -> None:
    await rows(database, HELD, "p1", "acme", "0.5")
    await rows(database, DEAD, "e1")
    await once(database, receiver.url, events=("usage.dead_letter",))
    assert receiver.types() == ["usage.dead_letter"]


async def test_a_killed_sender_sends_again_with_the_same_id_and_leaves_nothing_out(
    database: str, receiver: Receiver
) -> None:
    """It is killed while the receiver has the message and has not answered: whether it was accepted is unknown."""
    for number in range(3):
        await rows(database, DEAD, f"e{number}")
    receiver.open.clear()
    words = ("-m", "tests.support.webhook_receiver", database, receiver.url)
    process = await asyncio.create_subprocess_exec(sys.executable, *words)
    try:
        await asyncio.wait_for(receiver.arrived.wait(), 60 * PATIENCE)
    finally:
        process.kill()
        await process.wait()
    receiver.open.set()
    await once(database, receiver.url)
    assert len(receiver.messages) == 3
    await later(database, 600)
    await once(database, receiver.url)
    ids = [message_id for message_id, _ in receiver.messages]
    assert ids.count(ids[0]) == 2
    assert len(set(ids)) == 3
    assert {message["data"]["transaction_id"] for _, message in receiver.messages} == {"e0", "e1", "e2"}


async def test_two_processes_send_a_message_once(database: str, receiver: Receiver) -> None:
    for number in range(20):
        await rows(database, DEAD, f"e{number}")
    await asyncio.gather(*(once(database, receiver.url) for _ in range(4)))
    await once(database, receiver.url)
    assert len(receiver.messages) == len({message_id for message_id, _ in receiver.messages}) == 20


async def test_an_unavailable_endpoint_gets_one_attempt_a_round_and_everything_once_it_is_back(
    database: str, receiver: Receiver
) -> None:
    for number in range(5):
        await rows(database, DEAD, f"e{number}")
    receiver.status = 503
    for _ in range(4):
        seen = await once(database, receiver.url)
    assert len(receiver.messages) == 4
    assert (seen.waiting, seen.disabled) == (5, 0)
    receiver.status = 204
    await once(database, receiver.url)  # the fifth, which was not tried, brings the others back
    seen = await once(database, receiver.url)
    assert (seen.waiting, seen.disabled) == (0, 0)
    assert len({message_id for message_id, _ in receiver.messages}) == 5


async def test_the_waits_between_attempts_grow_to_hours(database: str, receiver: Receiver) -> None:
    await rows(database, DEAD, "e1")
    receiver.status = 500
    waits = []
    for _ in range(8):
        await once(database, receiver.url)
        [[wait]] = await rows(database, "SELECT extract(epoch FROM due_at - now())::float FROM outgoing_webhooks")
        waits.append(wait)
        await later(database, wait + 1)
    assert 4 < waits[0] < 8
    assert all(later_one > earlier for earlier, later_one in pairwise(waits[:7]))
    assert 35_000 < waits[7] < 46_000


async def test_an_endpoint_that_fails_for_five_days_is_disabled_and_a_test_message_enables_it(
    database: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rows(database, DEAD, "e1")
    receiver.status = 500
    await once(database, receiver.url)
    await later(database, 5 * DAY_S + 60)
    seen = await once(database, receiver.url)
    assert seen.outcomes == ["given_up"]
    await rows(database, DEAD, "e2")
    seen = await once(database, receiver.url)
    assert (seen.waiting, seen.disabled, len(receiver.messages)) == (1, 1, 2)
    for name, value in (
        ("DATABASE_URL", database),
        ("OUTGOING_WEBHOOK_URLS", receiver.url),
        ("OUTGOING_WEBHOOK_SECRETS", SECRET),
        ("OUTGOING_WEBHOOK_ALLOW_HTTP", "true"),
    ):
        monkeypatch.setenv(name, value)
    failed = await asyncio.to_thread(CliRunner().invoke, app, ["webhooks", "test"])
    assert failed.exit_code == 1
    assert (await once(database, receiver.url)).disabled == 1
    receiver.status = 200
    passed = await asyncio.to_thread(CliRunner().invoke, app, ["webhooks", "test", "--json"])
    assert decode(passed.stdout) == [{"host": "127.0.0.1", "status": 200, "taken": True}]
    seen = await once(database, receiver.url)
    assert (seen.waiting, seen.disabled) == (0, 0)
    assert receiver.types()[-1] == "usage.dead_letter"


async def test_an_endpoint_that_is_gone_is_disabled_at_once(database: str, receiver: Receiver) -> None:
    await rows(database, DEAD, "e1")
    receiver.status = 410
    assert (await once(database, receiver.url)).disabled == 1


async def test_a_redirect_is_not_followed(database: str, receiver: Receiver) -> None:
    await rows(database, DEAD, "e1")
    async with webhook_receiver() as other:
        receiver.status, receiver.location = 307, other.url
        seen = await once(database, receiver.url)
        assert seen.outcomes == ["failed"]
        assert other.messages == []


async def test_messages_for_a_dead_endpoint_are_bounded_and_the_others_get_theirs(
    database: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcements, "MOST_WAITING", 3)
    dead = "http://127.0.0.1:1/hook"
    for number in range(8):
        await rows(database, DEAD, f"e{number}")
        seen = await once(database, dead, receiver.url)
    assert seen.waiting == 3
    assert len(receiver.messages) == 8
    [[given_up]] = await rows(database, "SELECT count(*) FROM outgoing_webhooks WHERE outcome = 'given_up'")
    assert given_up == 5


async def test_a_slow_endpoint_delays_the_others_by_one_turn(database: str, receiver: Receiver) -> None:
    """It takes each message, after 14 seconds; an attempt may take 15."""
    for number in range(20):
        await rows(database, DEAD, f"e{number}")
    async with webhook_receiver() as slow:
        with Database(database, size=1) as pool:
            task = task_of(pool, slow.url, receiver.url)
            task.sender = replace(task.sender, monotonic=lambda: 14.0 * len(slow.messages))
            await task.once()
            assert (len(slow.messages), len(receiver.messages)) == (2, 20)
            for _ in range(9):
                await task.once()
        assert (len(slow.messages), len(receiver.messages)) == (20, 20)


async def test_the_metrics_of_outgoing_webhooks_show_sent_and_waiting_messages(
    database: str, receiver: Receiver
) -> None:
    metrics = Metrics(CollectorRegistry(), "0")
    sensors = WorkerSensors(metrics, lambda: 0.0)
    for number in range(2):
        await rows(database, DEAD, f"e{number}")
    with Database(database, size=1) as pool:
        task = task_of(pool, "http://127.0.0.1:1/hook", receiver.url, seen=sensors)
        await task.once()
    value = metrics.registry.get_sample_value
    assert value("meterbridge_outgoing_webhooks_total", {"outcome": "sent"}) == 2
    assert value("meterbridge_outgoing_webhooks_total", {"outcome": "failed"}) == 1
    assert value("meterbridge_outgoing_webhooks_waiting") == 2
    assert value("meterbridge_outgoing_webhook_endpoints_disabled") == 0


async def test_messages_that_ended_long_ago_are_deleted(database: str, receiver: Receiver) -> None:
    await rows(database, DEAD, "e1")
    await once(database, receiver.url)
    await rows(database, "UPDATE outgoing_webhooks SET ended_at = now() - interval '31 days'")
    await once(database, receiver.url)
    assert await rows(database, "SELECT 1 FROM outgoing_webhooks") == []
