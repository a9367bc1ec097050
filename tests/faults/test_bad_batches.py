"""Ten batches of a hundred events, each with one bad event and one duplicate: the other 98 are billed, once."""

import time
from collections import Counter
from collections.abc import Callable
from random import Random

import msgspec
import pytest

from tests.support.eventually import soon
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.posting import event, put, quick_delivery, statuses
from tests.support.sandbox import lago_sandbox
from tests.support.stage import Stage

pytestmark = pytest.mark.faults

BATCHES, BATCH = 10, 99


async def test_one_bad_event_and_one_repeat_in_each_of_ten_batches_affect_no_other_event(
    kafka: Kafka, topic_prefix: str, figures: Callable[..., None]
) -> None:
    """Lago stores a batch completely or not at all: the good events are posted again at once, the bad one is reported
    with Lago's reason.
    """
    stage, random = Stage(kafka.bootstrap, topic_prefix, partitions=1), Random(4)
    names = [range(n * BATCH, (n + 1) * BATCH) for n in range(BATCHES)]
    bad = {f"e-{random.choice(batch)}" for batch in names}
    for batch in names:
        events = [event(number) for number in batch]
        twice = random.choice([one for one in events if one.transaction_id not in bad])
        events.insert(random.randrange(BATCH), twice)
        for one in events:
            if one.transaction_id in bad:
                one.timestamp = "2026-03-01T12:00:00Z"
        put(stage, events)
    async with (
        lago_sandbox(clock=time.time) as lago,
        http_client(trust_env=False) as http,
        stage.running("sink", stage.parts(delivery=quick_delivery(lago, http))),
    ):
        await soon(lambda: len(stage.sensors.receipts) == BATCHES * (BATCH + 1), 30)
        stats = await lago.stats()
        lines = (await lago.http.get("/__events")).text.splitlines()
    good = {f"e-{number}" for batch in names for number in batch} - bad
    figures(good=len(good), bad=len(bad), posts=stats["posts"])
    assert Counter(msgspec.json.decode(line)["transaction_id"] for line in lines) == Counter(good)
    assert statuses(stage) == dict.fromkeys(good, "completed") | dict.fromkeys(bad, "failed")
    dead_letters = stage.read(stage.topics.dlq)
    assert Counter(
        msgspec.json.decode(dead_letter.value())["transaction_id"] for dead_letter in dead_letters
    ) == Counter(bad)
    assert {dict(dead_letter.headers())["reason"] for dead_letter in dead_letters} == {b"invalid_timestamp"}
    assert stage.read(stage.topics.retry) == []
