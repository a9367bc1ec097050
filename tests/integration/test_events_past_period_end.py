"""Events that waited over the end of their billing period, with real Kafka: posted with a time that Lago still bills,
once.
"""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest

from connectors.lago.client import LagoClient
from schemas.customers import OrgRecord, Period
from schemas.moments import parse_us, to_iso
from schemas.policy import OutOfPeriodPolicy
from schemas.records import LagoEvent
from tests.support.command import meterbridge
from tests.support.database import projector_parts, rows, until
from tests.support.eventually import PATIENCE, soon
from tests.support.http_client import http_client
from tests.support.posting import event, put, quick_delivery, statuses
from tests.support.sandbox import DAY, KEY, Lago, lago_sandbox
from tests.support.stage import QUICK, Stage


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=time.time) as sandbox:
        await sandbox.usage_plan()
        await sandbox.subscribe("sub", "org", subscription_at="2026-01-01T00:00:00Z")
        yield sandbox


def month_began() -> str:
    now = datetime.now(UTC)
    return f"{datetime(now.year, now.month, 1, tzinfo=UTC).timestamp():.3f}"


def late(number: int, org_id: str = "org") -> LagoEvent:
    """A time in the month before the last at the latest."""
    one = event(number)
    one.timestamp = f"{int(time.time() - 40 * DAY)}.000"
    one.properties["org_id"] = org_id
    return one


def learnt(stage: Stage) -> None:
    period = Period("sub", 0, interval="monthly", charged=("ai_usage",))
    stage.producer.produce(stage.topics.orgs, msgspec.json.encode(OrgRecord("org", periods=(period,))), "org")
    stage.producer.flush(10 * PATIENCE)


async def test_usage_that_waited_over_the_end_of_the_month_is_billed_in_the_running_month(
    stage: Stage, database: str, lago: Lago
) -> None:
    """The topic keeps the sealed event; the receipt and the tables have what Lago got."""
    learnt(stage)
    events = [late(0), late(1), event(2), late(3, org_id="unknown")]
    put(stage, events)
    async with (
        http_client(trust_env=False) as http,
        projector_parts(stage, database) as base,
    ):
        delivery = quick_delivery(lago, http)
        parts = replace(base, delivery=lambda: delivery)
        async with stage.running("sink", parts), stage.running("project", parts):
            await until(
                database, "SELECT count(*) FROM lago_events WHERE status = 'completed'", lambda count: count == 4
            )
    result = {one["transaction_id"]: one.get("timestamp", "") for one in stage.values(stage.topics.receipts)}
    assert result == {"e-0": month_began(), "e-1": month_began(), "e-2": "", "e-3": ""}
    assert [msgspec.json.decode(one.value(), type=LagoEvent) for one in stage.read(stage.topics.events)] == events
    assert (await lago.stats())["totals"]["billed_cents"] == "4.5", "of the unknown org nothing is known"
    [(moved,)] = await rows(
        database, "SELECT count(*)::int FROM lago_events WHERE billed_at = date_trunc('month', now(), 'UTC')"
    )
    assert moved == 2


async def test_with_the_policy_hold_it_is_a_dead_letter_that_can_be_requeued_when_it_may_be_moved(
    stage: Stage, lago: Lago
) -> None:
    learnt(stage)
    put(stage, [late(0), event(1)])
    async with http_client(trust_env=False) as http:
        held = stage.parts(replace(QUICK, out_of_period_policy=OutOfPeriodPolicy.HOLD), quick_delivery(lago, http))
        async with stage.running("sink", held):
            await soon(lambda: statuses(stage) == {"e-0": "failed", "e-1": "completed"})
        [dead_letter] = stage.read(stage.topics.dlq)
        assert dict(dead_letter.headers())["reason"] == b"invoiced_period"
        back = await meterbridge(stage, "dlq", "requeue", "--reason", "invoiced_period")
        assert back.code == 0, back.out + back.err
        async with stage.running("retry", stage.parts(delivery=quick_delivery(lago, http))):
            await soon(lambda: set(statuses(stage).values()) == {"completed"}, limit_s=20)
    assert (await lago.stats())["totals"]["billed_cents"] == "3"


async def test_an_event_posted_to_the_next_subscription_is_not_posted_again_when_its_own_runs_again(
    stage: Stage, lago: Lago
) -> None:
    """The record had a wrong end. The sink was killed after its post; Lago's key is id and subscription."""
    await lago.subscribe("next", "org", subscription_at="2026-01-01T00:00:00Z")
    one = event(0)
    one.properties["org_id"] = "org"
    posted = msgspec.structs.replace(
        one,
        external_subscription_id="next",
        properties={**one.properties, "usage_end": to_iso(parse_us(one.timestamp))},
    )
    period = Period("sub", 0, interval="monthly", charged=("ai_usage",))
    runs = OrgRecord("org", periods=(period,), updated_at=time.time_ns() // 1000)
    stage.producer.produce(stage.topics.orgs, msgspec.json.encode(runs), "org")
    put(stage, [one])
    async with http_client(trust_env=False) as http:
        delivery = quick_delivery(lago, http)
        answer = await LagoClient(http, lago.url, KEY).post_batch(b'{"events":[' + msgspec.json.encode(posted) + b"]}")
        assert answer.status == 200
        async with stage.running("sink", stage.parts(delivery=delivery)):
            await soon(lambda: statuses(stage) == {"e-0": "completed"})
    assert (await lago.stats())["totals"]["billed_cents"] == "1.5"
    [receipt] = stage.values(stage.topics.receipts)
    assert receipt["external_subscription_id"] == "next"
