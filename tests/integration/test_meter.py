"""The meter with real Kafka: calls become events, once."""

import time
from dataclasses import replace
from decimal import Decimal

from schemas.moments import SECOND_US
from tests.support.calls import Raw, raw, slp
from tests.support.eventually import soon
from tests.support.stage import QUICK, Stage


def now_calls(numbers: range, customer: str = "acme") -> list[Raw]:
    at = time.time_ns() // 1000
    return [raw(0, slp(n, at_us=at), customer=customer, received_us=at) for n in numbers]


def billed(stage: Stage) -> tuple[int, Decimal]:
    events = stage.values(stage.topics.events)
    calls = sum(int(event["properties"]["requests"]) for event in events)
    return calls, sum((Decimal(event["precise_total_amount_cents"]) for event in events), Decimal(0))


async def test_calls_become_events_once_for_any_number_of_deliveries(stage: Stage) -> None:
    stage.map("acme", "org-a", "sub-a")
    calls = now_calls(range(50))
    stage.put([*calls, *calls, *calls])
    async with stage.running("meter", stage.parts()):
        await soon(lambda: billed(stage)[0] == 50)
    assert billed(stage) == (50, Decimal("0.000145") * 100 * 50)
    assert stage.sensors.calls == {"billable": 50, "duplicate": 100}
    assert len(stage.values(stage.topics.enriched)) == 50
    assert {event["external_subscription_id"] for event in stage.values(stage.topics.events)} == {"sub-a"}


async def test_usage_of_an_unmapped_customer_waits_for_its_mapping(stage: Stage) -> None:
    stage.put(now_calls(range(20)))
    async with stage.running("meter", stage.parts()):
        await soon(lambda: stage.sensors.calls.get("billable") == 20)
        assert billed(stage)[0] == 0
        stage.map("acme", "org-a", "sub-a")
        await soon(lambda: billed(stage)[0] == 20)


async def test_a_restarted_meter_continues_where_the_last_one_stopped(stage: Stage) -> None:
    stage.map("acme", "org-a", "sub-a")
    calls = now_calls(range(90))
    for part in (calls[:30], calls[20:60], calls[50:]):
        stage.put(part)
        async with stage.running("meter", stage.parts()):
            wanted = int(slp(0)["total_tokens"]) and calls.index(part[-1]) + 1
            await soon(lambda wanted=wanted: billed(stage)[0] == wanted)  # type: ignore[misc]
    assert billed(stage) == (90, Decimal("0.0145") * 90)
    numbers = sorted(
        (dict(message.headers())["raw_partition"], int(dict(message.headers())["seal_seq"]))
        for message in stage.read(stage.topics.events)
    )
    assert [number for _, number in numbers] == list(range(1, len(numbers) + 1))


async def test_in_per_call_mode_each_call_is_an_event_at_once(stage: Stage) -> None:
    stage.map("acme", "org-a", "sub-a")
    calls = now_calls(range(10))
    stage.put([*calls, *calls])
    async with stage.running("meter", stage.parts(replace(QUICK, window_us=0))):
        await soon(lambda: len(stage.values(stage.topics.events)) == 10)
    assert len({event["transaction_id"] for event in stage.values(stage.topics.events)}) == 10


async def test_the_last_call_of_a_silent_customer_is_billed_without_new_traffic(stage: Stage) -> None:
    stage.map("acme", "org-a", "sub-a")
    async with stage.running("meter", stage.parts()):
        stage.put(now_calls(range(1)))
        await soon(lambda: billed(stage)[0] == 1)


async def test_a_late_call_opens_the_next_part_of_its_window(stage: Stage) -> None:
    stage.map("acme", "org-a", "sub-a")
    at = time.time_ns() // 1000 - 30 * SECOND_US
    async with stage.running("meter", stage.parts()):
        for number in range(2):
            stage.put([raw(0, slp(number, at_us=at), received_us=at)])
            await soon(lambda number=number: billed(stage)[0] == number + 1)  # type: ignore[misc]
    first, second = stage.values(stage.topics.events)
    assert first["properties"]["window_start"] == second["properties"]["window_start"]
    assert first["transaction_id"] != second["transaction_id"]


async def test_a_wrong_ledger_halts_its_partition_and_raises_an_alarm_while_the_process_continues(stage: Stage) -> None:
    stage.map("acme", "org-a", "sub-a")
    stage.put(now_calls(range(5)))
    async with stage.running("meter", stage.parts()):
        await soon(lambda: billed(stage)[0] == 5)
    stage.put(now_calls(range(5, 10)))
    async with stage.running("meter", stage.parts(replace(QUICK, deployment="somebody-else"))):
        await soon(lambda: stage.sensors.halted)
    assert {reason for _, _, reason in stage.sensors.halted} == {"other_deployment"}
    assert billed(stage)[0] == 5
