"""Workers whose wall clock is an hour or a day wrong: bills and their times are those of the calls.

The clock is handed to the roles (`Components.now_us`); Kafka's and the test's own are right.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial

import pytest

from schemas.moments import HOUR_US
from streams.components import Components
from tests.support.calls import Raw, raw, slp
from tests.support.eventually import soon
from tests.support.http_client import http_client
from tests.support.posting import event, put, quick_delivery, statuses
from tests.support.sandbox import lago_sandbox
from tests.support.stage import Stage

pytestmark = pytest.mark.faults

CALLS = 20
OFF_BY_H = (-24, -1, 1, 24)


def off_by(hours: float, parts: Components) -> Components:
    return replace(parts, now_us=lambda: time.time_ns() // 1000 + int(hours * HOUR_US))


def calls(numbers: range, *, received_h: float = 0) -> list[Raw]:
    """Calls that end now, received by an ingress whose clock may be wrong too."""
    at = time.time_ns() // 1000
    received = at + int(received_h * HOUR_US)
    return [raw(0, slp(n, at_us=at), customer=f"c-{n % 4}", received_us=received) for n in numbers]


def billed(stage: Stage) -> tuple[int, Decimal]:
    events = stage.values(stage.topics.events)
    cents = sum((Decimal(event["precise_total_amount_cents"]) for event in events), Decimal(0))
    return sum(int(event["properties"]["requests"]) for event in events), cents


async def test_meters_with_wrong_clocks_bill_each_call_once_at_its_own_time(
    stage: Stage, figures: Callable[..., None]
) -> None:
    """A clock ahead seals at once, a clock behind only after a day: then another meter seals. All of them recognise
    repeats.
    """
    begun, sent, last = time.time(), 0, calls(range(0))
    for number in range(4):
        stage.map(f"c-{number}", "org", "sub")
    for hours in OFF_BY_H:
        now = calls(range(sent, sent + CALLS))
        stage.put([*last[:5], *now])
        sent, last = sent + CALLS, now
        async with stage.running("meter", off_by(hours, stage.parts())):
            await soon(lambda sent=sent: stage.sensors.calls.get("billable") == sent, 30)  # type: ignore[misc]
    stage.put(calls(range(sent, sent + CALLS), received_h=0.9))
    sent += CALLS
    async with stage.running("meter", stage.parts()):
        await soon(lambda: billed(stage)[0] >= sent, 30)
    assert billed(stage) == (sent, Decimal("0.0145") * sent)
    assert stage.sensors.calls == {"billable": sent, "duplicate": 15}
    assert stage.read(stage.topics.rejected) == []
    for one in stage.values(stage.topics.events):
        assert begun - 1 <= float(one["timestamp"]) <= time.time()
        assert begun - 2 <= datetime.fromisoformat(one["properties"]["window_start"]).astimezone(UTC).timestamp()
    figures(calls=sent, clocks=" ".join(f"{hours:+d}h" for hours in OFF_BY_H), duplicates=15)


@pytest.mark.parametrize("hours", OFF_BY_H)
async def test_sink_and_retry_with_wrong_clocks_deliver_each_event_once(stage: Stage, hours: float) -> None:
    """The retry time is set by one clock and awaited by another: the event is delivered neither never nor twice."""
    async with lago_sandbox(clock=time.time) as lago, http_client(trust_env=False) as http:
        await lago.fault(kind="poison", transaction_id="e-3")
        put(stage, [event(number) for number in range(8)])
        sink = off_by(hours, stage.parts(delivery=quick_delivery(lago, http), retry_delay_s=0.5, max_retries=100))
        retry = replace(sink, delivery=partial(quick_delivery, lago, http))
        async with stage.running("sink", sink), stage.running("retry", retry):
            await soon(lambda: statuses(stage).get("e-3") == "processing", 30)
            await lago.http.delete("/__faults")
            await soon(lambda: len(statuses(stage)) == 8 and set(statuses(stage).values()) == {"completed"}, 30)
        stats = await lago.stats()
    assert (stats["totals"]["events"], stats["conflicts"]) == (8, 0)
    assert stage.read(stage.topics.dlq) == []
