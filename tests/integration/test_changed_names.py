"""Two runs over the same usage with a changed CUSTOMER_ID_FIELDS or TOPIC_PREFIX between them: what is billed, and what
is reported.
"""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from connectors.config.settings import load_settings
from connectors.ingest.spool import Spool
from connectors.operations.money_notes import notes_of
from connectors.postgres.pool import Database
from connectors.processes.worker_parts import parts_of
from connectors.telemetry.metrics import Metrics
from schemas.errors import ConfigurationError, TopicProblem
from streams.runtime.transactions import partition_of
from tests.integration.test_mapping_api import json_of
from tests.support.calls import raw, slp
from tests.support.database import projector_parts, until
from tests.support.eventually import soon
from tests.support.kafka import Kafka
from tests.support.server import running_server, settings_for
from tests.support.stage import Stage

PARTITIONS = 2
NOW_US = time.time_ns() // 1000
TOKEN = {"Authorization": "Bearer webhook-token"}


def team(*, beside: str, together: bool) -> str:
    """A team whose partition is that of `beside`, or another one."""

    def home(key: str) -> int:
        return partition_of(key.encode(), PARTITIONS)

    return next(name for n in range(99) if (home(name := f"team-{n}") == home(beside)) is together)


def billed(stage: Stage) -> Counter[str]:
    """Calls by the customer that is billed for them."""
    found: Counter[str] = Counter()
    for event in stage.values(stage.topics.events):
        found[event["properties"]["user_id"]] += int(event["properties"]["requests"])
    return found


async def complaints(url: str) -> list[str]:
    database = Database(url, size=1)
    try:
        return (await notes_of(database)).complaints
    finally:
        database.terminate()


async def receive(kafka: Kafka, prefix: str, fields: tuple[str, ...], *calls: dict[str, Any]) -> None:
    """An ingress with these CUSTOMER_ID_FIELDS accepts the calls and stops."""
    settings = settings_for(
        kafka, prefix, kafka_partitions=PARTITIONS, webhook_token=("webhook-token",), customer_id_fields=fields
    )
    async with running_server(settings, ["webhooks"]) as server:
        for call in calls:
            json_of(await server.http.post("/webhook/litellm/usage", json=call, headers=TOKEN), 202)


async def settle(stage: Stage, url: str, **decisions: int) -> None:
    """Meter and projector run until the given number of calls have these decisions and all billed usage was emitted."""
    async with (
        projector_parts(stage, url) as parts,
        stage.running("meter", stage.parts()),
        stage.running("project", parts),
    ):
        await soon(lambda: {name: stage.sensors.calls.get(name, 0) for name in decisions} == decisions, limit_s=30)
        await soon(lambda: billed(stage).total() == decisions["billable"], limit_s=30)
        ends = {message.partition(): message.offset() + 1 for message in stage.read(stage.topics.enriched)}
        place = f"SELECT COALESCE(sum(next), 0)::int FROM projector_offsets WHERE topic = '{stage.topics.enriched}'"
        await until(url, place, lambda reached: reached >= sum(ends.values()))


@pytest.mark.parametrize("together", [True, False])
async def test_changed_customer_id_fields_apply_to_later_calls_and_a_repeat_that_is_counted_twice_is_reported(
    kafka: Kafka, topic_prefix: str, database: str, *, together: bool
) -> None:
    """
    eve's calls 1, 2 | fields: the team | call 1 again, call 3: the team's
    what was counted stays eve's; the repeat is a duplicate only where both names have one ledger
    """
    stage = Stage(kafka.bootstrap, topic_prefix, PARTITIONS)
    other = team(beside="eve", together=together)
    stage.map("eve", "org-eve", "sub-eve")
    stage.map(other, "org-team", "sub-team")
    calls = [
        {"id": f"r-{n}", "litellm_call_id": f"c-{n}", "end_user": "eve", "team_id": other, "model": "m", "spend": 0.5}
        for n in range(4)
    ]
    await receive(kafka, topic_prefix, ("end_user", "team"), *calls[1:3])
    await settle(stage, database, billable=2)
    assert billed(stage) == {"eve": 2}
    await receive(kafka, topic_prefix, ("team", "end_user"), calls[1], calls[3])
    if together:
        await settle(stage, database, billable=3, duplicate=1)
        assert billed(stage) == {"eve": 2, other: 1}
        assert await complaints(database) == []
    else:
        await settle(stage, database, billable=4)
        assert billed(stage) == {"eve": 2, other: 2}
        (one,) = await complaints(database)
        assert "r-1 at" in one and f"for eve and for {other}, 0.5 USD" in one and "CUSTOMER_ID_FIELDS" in one


def standing(stage: Stage) -> dict[tuple[int, bytes], tuple[int, bytes | None]]:
    """The last record of each key in the changelog, with its offset. Earlier ones may be compacted at any moment."""
    messages = stage.read(stage.topics.changelog)
    last = {(message.partition(), message.key()): (message.offset(), message.value()) for message in messages}
    return {key: (offset, value) for key, (offset, value) in last.items() if value is not None}


async def test_another_topic_prefix_starts_empty_and_leaves_the_old_topics_unchanged(
    kafka: Kafka, topic_prefix: str, database: str
) -> None:
    """
    old prefix: calls 1 2 3 | new prefix: call 3 again, 4 5 | old prefix: calls 1 2 3 again
    billed:     1 2 3       |             3, 4 5            | nothing
    """
    new = f"{topic_prefix}new."
    old_stage = Stage(kafka.bootstrap, topic_prefix, PARTITIONS)
    variables = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, "TOPIC_PREFIX": new, "KAFKA_PARTITIONS": str(PARTITIONS)}
    with pytest.raises(TopicProblem, match=f"and none of TOPIC_PREFIX={new}, which is set now"):
        parts_of(load_settings(variables), lambda: pytest.fail("asked"), Metrics(CollectorRegistry(), "0"))
    calls = [raw(0, slp(n, cost="0.5", at_us=NOW_US), customer="acme", received_us=NOW_US) for n in range(6)]
    old_stage.map("acme", "org", "sub")
    old_stage.put(calls[1:4])
    await settle(old_stage, database, billable=3)
    before = standing(old_stage)
    new_stage = Stage(kafka.bootstrap, new, PARTITIONS)
    new_stage.map("acme", "org", "sub")
    new_stage.put([calls[3], *calls[4:6]])
    await settle(new_stage, database, billable=3)
    (one,) = await complaints(database)
    assert (
        "is counted twice for acme, 0.5 USD: it was sent again after TOPIC_PREFIX was changed" in one
        and "TOPIC_PREFIX" in one
    )
    assert standing(old_stage) == before
    ids = [event["transaction_id"] for stage in (old_stage, new_stage) for event in stage.values(stage.topics.events)]
    assert len(set(ids)) == len(ids), "an id of one is never an id of the other"
    old_stage.put(calls[1:4])
    await settle(old_stage, database, billable=3, duplicate=3)
    assert len(await complaints(database)) == 1


async def test_a_spool_of_the_old_prefix_keeps_the_ingress_from_starting_until_it_is_drained(
    kafka: Kafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Kafka was unavailable when the prefix was changed: calls that were answered 202 must not end in a topic that no
    meter reads.
    """
    stage = Stage(kafka.bootstrap, topic_prefix, PARTITIONS)
    path = tmp_path / "spool.db"
    spool = await Spool.at(path, 1 << 20)
    await spool.put([(stage.topics.raw, "acme", b"{}", NOW_US // 1000)])
    await spool.close()
    old = settings_for(kafka, topic_prefix, kafka_partitions=PARTITIONS, spool_path=path)
    new = settings_for(kafka, f"{topic_prefix}new.", kafka_partitions=PARTITIONS, spool_path=path)
    with pytest.raises(ConfigurationError, match=f"1 record for the topic {stage.topics.raw}"):
        async with running_server(new, ["webhooks"]):
            pytest.fail("it started")
    async with running_server(old, ["webhooks"]):
        await soon(lambda: len(stage.read(stage.topics.raw)) == 1)
    async with running_server(new, ["webhooks"]):
        pass
