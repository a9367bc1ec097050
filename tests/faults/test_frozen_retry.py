"""A retry role that is frozen while its events wait, and continues after another member has posted them."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from tests.faults.kill_at_step import worker
from tests.faults.self_killing_worker import TAKES
from tests.support.eventually import soon
from tests.support.kafka import Kafka
from tests.support.posting import event, put_into_retry, statuses
from tests.support.sandbox import lago_sandbox
from tests.support.stage import Stage

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

EVENTS = 40
#: The mortal role's session ends after 6 s; it wakes well after that.
FROZEN_S = 12.0
LIMIT_S = 60.0


def members(stage: Stage) -> int:
    """The number of members of the retry group, once it is stable and every member has its partitions; 0 before."""
    admin = AdminClient({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    group = f"{stage.settings.topic_prefix}{stage.settings.deployment_name}-retry"
    try:
        found = admin.describe_consumer_groups([group])[group].result()
    except KafkaException:  # the group is new to a coordinator that is still starting
        return 0
    at_rest = found.state is ConsumerGroupState.STABLE and all(m.assignment.topic_partitions for m in found.members)
    return len(found.members) if at_rest else 0


async def test_a_retry_role_frozen_longer_than_its_session_delivers_its_events_once(
    kafka: Kafka, topic_prefix: str, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """It was frozen while it held events, and posts them when it continues: Lago recognises them, and its commit is
    refused.
    """
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=1)
    async with (
        lago_sandbox(clock=time.time) as lago,
        worker(["tests.faults.self_killing_worker", "retry", "-"], stage, lago, tmp_path, name="frozen") as frozen,
        worker(["connectors", "worker", "--only", "retry"], stage, lago, tmp_path, name="heir") as heir,
    ):
        frozen.start()
        await soon(lambda: members(stage) == 1, LIMIT_S)
        due_ms = time.time_ns() // 1_000_000 + 4_000
        headers = [("attempt", b"1"), ("not_before", b"%d" % due_ms), ("maybe_sent", b"0")]
        for number in range(EVENTS):
            put_into_retry(stage, msgspec.json.encode(event(number)), [*headers])
        await soon(lambda: TAKES in frozen.log.read_text(), LIMIT_S)  # it waits for their moment
        freezing = asyncio.ensure_future(frozen.freeze(FROZEN_S))
        heir.start()
        await soon(lambda: Counter(statuses(stage).values()) == {"completed": EVENTS}, LIMIT_S)
        await freezing
        await soon(lambda: not frozen.alive or members(stage) == 2, LIMIT_S)  # it ends itself, or joins again
        stats = await lago.stats()
        lines = (await lago.http.get("/__events")).text.splitlines()
    assert Counter(msgspec.json.decode(line)["transaction_id"] for line in lines) == Counter(
        f"e-{number}" for number in range(EVENTS)
    )
    receipts = Counter((one["transaction_id"], one["status"]) for one in stage.values(stage.topics.receipts))
    assert receipts == Counter((f"e-{number}", "completed") for number in range(EVENTS))
    assert stage.read(stage.topics.dlq) == []
    figures(events=EVENTS, frozen_s=FROZEN_S, repeats=stats["duplicates"])
