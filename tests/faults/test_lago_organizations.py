"""Two Lago organisations with one real sink: errors of one delay nothing of the other, and every event is billed once."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from schemas.records import LagoEvent, Manifest
from streams.state.step_writes import MANIFEST
from tests.faults.kill_at_step import worker
from tests.support.eventually import PATIENCE, soon, within
from tests.support.kafka import Kafka
from tests.support.posting import statuses
from tests.support.sandbox import KEY, Lago, lago_sandbox
from tests.support.stage import Stage

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

SINK = ["connectors", "worker", "--only", "sink"]
#: Subscriptions have equal ids in both organisations.
SUBSCRIPTIONS = 3
CENTS = Decimal("1.37")


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=time.time, api_key=KEY) as sandbox:
        yield sandbox


def organizations(folder: Path, eu: Lago, key: str) -> dict[str, str]:
    """Settings with one further organisation, `eu`, and its key in a file of its own."""
    (folder / "eu.key").write_text(key)
    listed = [{"id": "eu", "url": eu.url, "key_file": str(folder / "eu.key")}]
    (folder / "organizations.json").write_text(json.dumps(listed))
    return {"LAGO_ORGANIZATIONS_FILE": str(folder / "organizations.json")}


def put(stage: Stage, organization: str, numbers: range) -> None:
    """Put events as the meter seals them: of every organisation, on every partition."""
    at = f"{int(time.time())}.000"
    manifest = msgspec.json.encode(Manifest(0, 0, 0, 1, organization=organization))
    for number in numbers:
        subscription = f"sub-{number % SUBSCRIPTIONS}"
        name = f"{organization or 'default'}-{number}"
        sealed = LagoEvent(name, subscription, "ai_usage", at, str(CENTS), {"unit": "1", "requests": "1"})
        stage.producer.produce(
            stage.topics.events, msgspec.json.encode(sealed), subscription, headers=[(MANIFEST, manifest)]
        )
    stage.producer.flush(10 * PATIENCE)


def logged(folder: Path) -> str:
    return "".join(file.read_text(errors="replace") for file in folder.glob("*.log"))


async def copies(lago: Lago) -> Counter[str]:
    lines = (await lago.http.get("/__events")).text.splitlines()
    return Counter(msgspec.json.decode(line)["transaction_id"] for line in lines)


async def billed(lago: Lago, organization: str, events: int) -> None:
    """Return when Lago has this number of events; they must be this organisation's, each once, with exact cents."""
    async with within(60):
        while (await lago.stats())["totals"]["events"] < events:
            await asyncio.sleep(0.05)
    assert await copies(lago) == Counter(f"{organization or 'default'}-{number}" for number in range(events))
    assert Decimal((await lago.stats())["totals"]["cents"]) == CENTS * events


def posted_nothing_elsewhere(stage: Stage) -> bool:
    """Check that events that an organisation does not accept wait in place: they are neither moved nor given up."""
    return not stage.read(stage.topics.retry) and not stage.read(stage.topics.dlq)


async def test_an_expired_key_delays_only_its_own_organisation_and_its_events_are_billed_once_after_the_renewal(
    kafka: Kafka, topic_prefix: str, tmp_path: Path, lago: Lago
) -> None:
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=2)
    async with lago_sandbox(clock=time.time, api_key="renewed") as eu:
        settings = organizations(tmp_path, eu, "expired")
        async with worker(SINK, stage, lago, tmp_path, **settings) as sink:
            sink.start()
            for start in range(0, 60, 10):
                put(stage, "eu", range(start, start + 10))
                put(stage, "", range(start, start + 10))
            await billed(lago, "", 60)
            assert not await copies(eu)
            assert posted_nothing_elsewhere(stage)
            await sink.kill()
            sink.start()  # waiting events have another owner now
            put(stage, "", range(60, 80))
            await billed(lago, "", 80)
            assert not await copies(eu)
            # Each has its own breaker: an event accepted by the other organisation does not close it.
            assert "breaker_closed" not in await asyncio.to_thread(logged, tmp_path)
            (tmp_path / "eu.new").write_text("renewed\n")
            (tmp_path / "eu.new").replace(tmp_path / "eu.key")
            await billed(eu, "eu", 60)
            await soon(lambda: Counter(statuses(stage).values()) == Counter(completed=140))
    assert posted_nothing_elsewhere(stage)
    said = await asyncio.to_thread(logged, tmp_path)
    assert '"organization": "eu"' in said and "http_401" in said
    assert "renewed" not in said


async def test_an_unavailable_organisation_delays_nothing_of_the_other(
    kafka: Kafka, topic_prefix: str, tmp_path: Path, lago: Lago
) -> None:
    """In both directions: also if the default organisation is unavailable."""
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=2)
    async with lago_sandbox(clock=time.time, api_key="eus") as eu:
        settings = organizations(tmp_path, eu, "eus")
        async with worker(SINK, stage, lago, tmp_path, **settings) as sink:
            sink.start()
            await eu.fault(kind="drop_after_accept", path="/", method="*", count=1)
            await eu.fault(kind="drop", path="/", method="*")
            put(stage, "eu", range(40))
            put(stage, "", range(40))
            await billed(lago, "", 40)
            assert len(await copies(eu)) < 40
            assert "breaker_closed" not in await asyncio.to_thread(logged, tmp_path)
            await eu.http.delete("/__faults")
            await billed(eu, "eu", 40)
            await lago.fault(kind="status", status=503, path="/", method="*")
            put(stage, "", range(40, 80))
            put(stage, "eu", range(40, 80))
            await billed(eu, "eu", 80)
            assert len(await copies(lago)) == 40
            await sink.kill()
            sink.start()
            await lago.http.delete("/__faults")
            await billed(lago, "", 80)
            await soon(lambda: Counter(statuses(stage).values()) == Counter(completed=160))
    assert posted_nothing_elsewhere(stage)


async def test_a_rate_limited_organisation_delays_nothing_of_the_other(
    kafka: Kafka, topic_prefix: str, tmp_path: Path, lago: Lago
) -> None:
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=2)
    async with lago_sandbox(clock=time.time, api_key="eus", rate_limit=10) as eu:
        settings = organizations(tmp_path, eu, "eus")
        async with worker(SINK, stage, lago, tmp_path, BATCH_SIZE="1", **settings) as sink:
            sink.start()
            put(stage, "eu", range(80))
            put(stage, "", range(80))
            await billed(lago, "", 80)
            assert len(await copies(eu)) < 80
            await billed(eu, "eu", 80)
            await soon(lambda: Counter(statuses(stage).values()) == Counter(completed=160))
    assert posted_nothing_elsewhere(stage)


async def halted(folder: Path, reason: str) -> None:
    async with within(60):
        while f'"reason": "{reason}"' not in await asyncio.to_thread(logged, folder):
            await asyncio.sleep(0.05)


def place(stage: Stage, group: str) -> list[int]:
    """Return the committed offsets of a partition task on the partitions of the events topic."""
    admin = AdminClient({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    name = f"{stage.settings.topic_prefix}{stage.settings.deployment_name}-{group}"
    found = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)])[name].result().topic_partitions
    return [one.offset for one in sorted(found, key=lambda one: one.partition) if one.topic == stage.topics.events]


async def test_events_of_an_unconfigured_organisation_wait_until_it_is_configured_and_are_sent_nowhere_else(
    kafka: Kafka, topic_prefix: str, tmp_path: Path, lago: Lago
) -> None:
    """It was removed from the settings, or is not in these settings yet while other processes have it: the meter had
    sealed these events.
    """
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=1)
    put(stage, "eu", range(3))
    put(stage, "", range(3))
    async with worker(SINK, stage, lago, tmp_path) as sink:
        sink.start()
        await billed(lago, "", 3)
        await halted(tmp_path, "unknown_organization")
        # A committed offset can be read when its transaction's marker is written, which is after the commit's answer.
        await soon(lambda: place(stage, "sink-eu") == [0])
        await sink.kill()
        sink.start()  # the offset of the default organisation is behind the first three
        put(stage, "", range(3, 6))
        put(stage, "eu", range(3, 6))
        await billed(lago, "", 6)
        await soon(lambda: Counter(statuses(stage).values()) == Counter(completed=6))
    assert posted_nothing_elsewhere(stage)
    async with lago_sandbox(clock=time.time, api_key="eus") as eu:
        settings = organizations(tmp_path, eu, "eus")
        async with worker(SINK, stage, lago, tmp_path, **settings) as sink:
            sink.start()
            await billed(eu, "eu", 6)
            await soon(lambda: Counter(statuses(stage).values()) == Counter(completed=12))
            assert await copies(lago) == Counter(f"default-{number}" for number in range(6))
    assert posted_nothing_elsewhere(stage)


async def test_during_the_rollout_of_an_organisation_each_of_its_events_is_billed_once_by_any_sink(
    kafka: Kafka, topic_prefix: str, tmp_path: Path, lago: Lago
) -> None:
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=2)
    async with lago_sandbox(clock=time.time, api_key="eus") as eu:
        settings = organizations(tmp_path, eu, "eus")
        async with (
            worker(SINK, stage, lago, tmp_path, name="without") as without,
            worker(SINK, stage, lago, tmp_path, name="having", **settings) as having,
        ):
            without.start()
            put(stage, "eu", range(20))
            put(stage, "", range(20))
            await billed(lago, "", 20)
            having.start()
            for start in range(20, 60, 10):
                put(stage, "eu", range(start, start + 10))
                put(stage, "", range(start, start + 10))
                await asyncio.sleep(0.5)  # the group moves a partition meanwhile
            await without.kill()
            await billed(lago, "", 60)
            await billed(eu, "eu", 60)
            await soon(lambda: Counter(statuses(stage).values()) == Counter(completed=120))
    assert posted_nothing_elsewhere(stage)


async def test_events_of_a_closed_organisation_become_dead_letters_that_are_never_posted_when_it_is_opened_again(
    kafka: Kafka, topic_prefix: str, tmp_path: Path, lago: Lago
) -> None:
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=1)
    async with lago_sandbox(clock=time.time, api_key="eus") as eu:
        settings = organizations(tmp_path, eu, "eus")
        closed = {"LAGO_ORGANIZATIONS": json.dumps([{"id": "eu", "closed": True}])}
        put(stage, "eu", range(3))
        put(stage, "", range(3))
        async with worker(SINK, stage, lago, tmp_path, **closed) as sink:
            sink.start()
            await billed(lago, "", 3)
            await soon(lambda: Counter(statuses(stage).values()) == Counter(completed=3, failed=3))
        async with worker(SINK, stage, lago, tmp_path, **settings) as sink:
            sink.start()
            put(stage, "eu", range(3, 6))
            await soon(lambda: Counter(statuses(stage).values()) == Counter(completed=6, failed=3))
        assert await copies(eu) == Counter(f"eu-{number}" for number in range(3, 6))
    reasons = [dict(letter.headers())["reason"] for letter in stage.read(stage.topics.dlq)]
    assert reasons == [b"organization_closed"] * 3
