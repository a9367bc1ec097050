"""Batches, background responses and videos that a client polls through LiteLLM's proxy are billed once.

The bodies were posted by a proxy of 1.110.2 in front of a provider on loopback. It reports the whole cost of a finished
job at every poll. A poll of a response has another id each time, unless `disable_responses_id_security` is set.
"""

import json
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from connectors.ingest.store import ElementStore
from connectors.kafka.client_config import producer_config
from connectors.kafka.producer import KafkaProducer
from schemas.moments import SECOND_US
from schemas.topics import RAW, REJECTED
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from tests.support.eventually import soon
from tests.support.http_client import http_client
from tests.support.ingress import USAGE, serving
from tests.support.kafka import Kafka
from tests.support.posting import quick_delivery
from tests.support.sandbox import lago_sandbox
from tests.support.stage import Stage

FOLDER = Path(__file__).parents[1] / "fixtures" / "polls"
RECORDINGS = sorted(path.stem for path in FOLDER.glob("*.json"))
NOW_US = 1_795_215_900_123_456
WEEK_US = 8 * 24 * 3600 * SECOND_US
POLLS = ("aretrieve_batch", "aget_responses", "avideo_status")
#: In cents. Of the user who polled: the batch, the background response, the video. Of `c1`: a chat and a response,
#: whose later reads cost nothing.
OWED = {"poll-user": Decimal("40.09"), "c1": Decimal("0.09")}


def bodies(recording: str) -> list[dict[str, Any]]:
    elements: list[dict[str, Any]] = json.loads((FOLDER / f"{recording}.json").read_text())
    return elements


def at(elements: Sequence[dict[str, Any]], now_us: int) -> list[dict[str, Any]]:
    """The same calls, the last of which ended one second before `now_us`."""
    moved_s = now_us / 1e6 - 1 - max(element["endTime"] for element in elements)
    return [
        element | {name: element[name] + moved_s for name in ("startTime", "endTime", "completionStartTime")}
        for element in elements
    ]


@pytest.mark.parametrize("recording", RECORDINGS)
async def test_a_polled_job_is_billed_once_over_a_restart_and_a_week(
    kafka: Kafka, topic_prefix: str, recording: str
) -> None:
    stage = Stage(kafka.bootstrap, topic_prefix)
    for customer in OWED:
        stage.map(customer, f"org-{customer}", f"sub-{customer}")
    elements = bodies(recording)
    clock, begun_us = [NOW_US - WEEK_US], time.monotonic_ns() // 1000
    producer = KafkaProducer(producer_config(kafka.bootstrap, answer_within_s=30))
    store = ElementStore(
        producer, topic_prefix + RAW.name, topic_prefix + REJECTED.name, CUSTOMER_ID_FIELDS, lambda: clock[0]
    )
    async with (
        lago_sandbox(clock=lambda: clock[0] / 1e6) as lago,
        http_client(trust_env=False) as http,
        serving(store) as ingress,
    ):
        await lago.plan()
        for customer in OWED:
            await lago.subscribe(f"sub-{customer}", f"org-{customer}", subscription_at="2026-01-01T00:00:00Z")

        async def billed(posted: Sequence[dict[str, Any]], decided: int) -> None:
            """Post the calls, and fold all of them with workers that restart."""
            answer = await ingress.post(json.dumps(posted), USAGE)
            assert answer.status == 202 and "rejected" not in await answer.json()
            parts = stage.parts(
                delivery=quick_delivery(lago, http), now_us=lambda: clock[0] + time.monotonic_ns() // 1000 - begun_us
            )
            async with stage.running("meter", parts), stage.running("sink", parts):
                await soon(lambda: sum(stage.sensors.calls.values()) == decided, limit_s=30)
                await soon(
                    lambda: sum(Decimal(r.cents) for r in stage.sensors.receipts) >= sum(OWED.values()), limit_s=30
                )

        await billed(at(elements, clock[0]), len(elements))
        clock[0] = NOW_US
        polls = [element for element in at(elements, NOW_US) if element["call_type"] in POLLS]
        # Another poll is another call: its own call id.
        again = [poll | {"litellm_call_id": poll["litellm_call_id"] + "-again"} for poll in polls]
        await billed(again, len(elements) + len(again))
    cents = {customer: Decimal(0) for customer in OWED}
    for receipt in stage.sensors.receipts:
        cents[receipt.external_subscription_id.removeprefix("sub-")] += Decimal(receipt.cents)
    assert cents == OWED
