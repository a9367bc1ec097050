"""Usage in flight is visible, so that no subscription ends before its usage has arrived."""

import time

import msgspec
from confluent_kafka import Producer

from connectors.config.settings import load_settings
from connectors.operations.usage_in_flight import WAITING_S, UsageInFlight, find_usage_in_flight, settled_us
from schemas.moments import HOUR_US, SECOND_US
from tests.support.calls import raw, slp
from tests.support.eventually import PATIENCE, soon
from tests.support.posting import event
from tests.support.stage import Stage


async def test_open_and_held_usage_dead_letters_and_unread_records_are_in_flight(stage: Stage) -> None:
    assert await find_usage_in_flight(stage.deployment) == UsageInFlight()
    at = time.time_ns() // 1000
    stage.put([raw(0, slp(1, at_us=at), customer="ghost", received_us=at)])
    async with stage.running("meter", stage.parts()):
        await soon(lambda: stage.sensors.calls.get("billable") == 1, limit_s=20)
    found = await find_usage_in_flight(stage.deployment)
    assert (found.open, found.dead, found.behind) == ({"ghost"}, set(), set())
    dead = msgspec.json.encode(event(1))
    producer: Producer = stage.producer
    producer.produce(stage.topics.dlq, dead, "sub", headers=[("reason", b"http_422")])
    old_ms = round((time.time() - WAITING_S - 60) * 1000)
    producer.produce(stage.topics.events, dead, "sub", timestamp=old_ms)
    producer.flush(10 * PATIENCE)
    found = await find_usage_in_flight(stage.deployment)
    assert ("sub" in found.dead, found.behind) == (True, {"events"})


def test_unread_records_may_belong_to_any_customer() -> None:
    found = UsageInFlight(open={"a"}, dead={"b"})
    assert [bool(found.of([name])) for name in ("a", "b", "c")] == [True, True, False]
    found.behind = {"events"}
    assert found.of(["c"]) == "not all is delivered: events"


def settled(**environ: str) -> int:
    settings = load_settings(environ)
    return settled_us(settings.meter_policy(), settings.max_retries, settings.retry_delay)


def test_usage_has_arrived_after_retention_window_and_every_retry() -> None:
    """Defaults: 25 hours, a window of 60 s with 5 s of grace, three retries of at most 66, 132 and 264 s, an hour."""
    assert settled() == 26 * HOUR_US + round((60 + 5 + 66 + 132 + 264) * SECOND_US)
    many = settled(MAX_RETRIES="100")
    assert many > 90 * HOUR_US
    assert settled(MAX_RETRIES="0") == 26 * HOUR_US + 65 * SECOND_US
