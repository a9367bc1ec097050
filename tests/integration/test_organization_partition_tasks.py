"""The partition task of a further Lago organisation keeps its offset, even if the organisation accepts nothing or gets
nothing for a long time.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from schemas.customers import OrgRecord
from schemas.records import LagoEvent, Manifest
from streams.agents import organization_lanes
from streams.agents.sink import DeliveryWork
from streams.core.delivery.batches import EventOutcome
from streams.runtime.transactions import TransactionalWriter
from streams.state.step_writes import MANIFEST
from tests.support.eventually import PATIENCE, soon
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.posting import quick_delivery
from tests.support.sandbox import lago_sandbox
from tests.support.stage import QUICK, Stage


class StuckDelivery:
    """A delivery to an organisation that accepts nothing."""

    async def deliver(self, *_: object) -> list[EventOutcome]:
        await asyncio.Event().wait()
        return []


class Spans:
    """Counts events whose spans started and have not ended."""

    begun = 0
    open = 0

    def delivering(self, records: Sequence[Any]) -> Callable[[Sequence[EventOutcome]], None]:
        self.begun += 1
        self.open += 1

        def settled(_outcomes: Sequence[EventOutcome]) -> None:
            self.open -= 1

        return settled

    def step(self, *_: object) -> Callable[[], None]:
        return lambda: None


@pytest.mark.parametrize("events", [0, 1])
async def test_a_partition_task_without_progress_commits_its_offset_again_and_again(
    kafka: Kafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, events: int
) -> None:
    """Kafka deletes an offset of a group without members 7 days after its last commit."""
    monkeypatch.setattr(organization_lanes, "_SESSION_S", 0.3)
    monkeypatch.setattr(organization_lanes, "_POST_S", 0.0)
    committed: list[int | None] = []
    committing = TransactionalWriter.commit

    async def commit(self: TransactionalWriter, writes: Any, source: Any, offset: int | None, group: str) -> Any:
        if group.endswith("-eu"):
            committed.append(offset)
        return await committing(self, writes, source, offset, group)

    monkeypatch.setattr(TransactionalWriter, "commit", commit)
    stage, spans = Stage(kafka.bootstrap, topic_prefix, partitions=1), Spans()
    manifest = msgspec.json.encode(Manifest(0, 0, 0, 1, organization="eu"))
    for _ in range(events):
        value = msgspec.json.encode(LagoEvent("eu-1", "sub", "ai_usage", "1764000000.000", "1.37", {}))
        stage.producer.produce(stage.topics.events, value, "sub", headers=[(MANIFEST, manifest)])
    stage.producer.flush(10 * PATIENCE)
    policy = replace(QUICK, organizations=("eu",))
    async with lago_sandbox() as lago, http_client(trust_env=False) as http:
        parts = stage.parts(policy, quick_delivery(lago, http), organizations={"eu": StuckDelivery}, traces=spans)
        async with stage.running("sink", parts):
            await soon(lambda: len(committed) >= 4 and spans.begun >= 3 * events)
            assert spans.open <= events
    assert spans.open == 0
    assert set(committed) == {0}
    assert not stage.sensors.halted


class SlowDelivery:
    """A delivery whose posts take longer than a session."""

    begun = ended = 0

    async def deliver(self, items: Sequence[Any], *_: object) -> list[EventOutcome]:
        self.begun += 1
        await asyncio.sleep(0.3)
        self.ended += 1
        return [EventOutcome("delivered", "", "", 0)] * len(items)


async def test_a_running_post_ends_before_a_partition_task_is_opened_again(
    kafka: Kafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a store without deduplication an interrupted post may be billed and has to be looked up."""
    monkeypatch.setattr(organization_lanes, "_SESSION_S", 0.05)
    opened, opening, slow = 0, DeliveryWork.open, SlowDelivery()

    async def counted(self: DeliveryWork) -> int:
        nonlocal opened
        opened += self._config.organization == "eu"
        return await opening(self)

    monkeypatch.setattr(DeliveryWork, "open", counted)
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=1)
    manifest = msgspec.json.encode(Manifest(0, 0, 0, 1, organization="eu"))
    value = msgspec.json.encode(LagoEvent("eu-1", "sub", "ai_usage", "1764000000.000", "1.37", {}))
    stage.producer.produce(stage.topics.events, value, "sub", headers=[(MANIFEST, manifest)])
    stage.producer.flush(10 * PATIENCE)
    policy = replace(QUICK, organizations=("eu",))
    async with lago_sandbox() as lago, http_client(trust_env=False) as http:
        parts = stage.parts(policy, quick_delivery(lago, http), organizations={"eu": lambda: slow})
        async with stage.running("sink", parts):
            await soon(lambda: slow.begun >= 1)
            before = opened
            await soon(lambda: opened >= before + 2)
    assert (slow.begun, slow.ended) == (1, 1), "the event was not posted again"


class AcceptingDelivery:
    """A delivery to an organisation that accepts everything; a library raises a `CancelledError` in its first post."""

    def __init__(self, *, interrupted: bool) -> None:
        self.interrupted, self.taken = interrupted, list[str]()

    async def deliver(self, items: Sequence[Any], *_: object) -> list[EventOutcome]:
        if self.interrupted:
            self.interrupted = False
            raise asyncio.CancelledError
        self.taken += [item.transaction_id for item in items]
        return [EventOutcome("delivered", "", "", 0)] * len(items)


@pytest.mark.parametrize("place", ["reader", "post"])
async def test_a_partition_task_continues_when_a_library_raises_a_cancellation(
    kafka: Kafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """It is the result of the reader's task then, and looks like the end of the partition task: its partition would be
    cancelled with it.
    """
    monkeypatch.setattr(organization_lanes, "_AGAIN_S", 0.01)
    readers, reading = list[object](), organization_lanes.OrganizationLane._read

    async def cancelled(**_: object) -> None:
        raise asyncio.CancelledError

    async def read(self: organization_lanes.OrganizationLane, consumer: Any) -> None:
        readers.append(self)
        if place == "reader" and len(readers) == 1:
            monkeypatch.setattr(consumer, "getmany", cancelled)
        await reading(self, consumer)

    monkeypatch.setattr(organization_lanes.OrganizationLane, "_read", read)
    stage, eu = Stage(kafka.bootstrap, topic_prefix, partitions=1), AcceptingDelivery(interrupted=place == "post")
    manifest = msgspec.json.encode(Manifest(0, 0, 0, 1, organization="eu"))
    value = msgspec.json.encode(LagoEvent("eu-1", "sub", "ai_usage", "1764000000.000", "1.37", {}))
    stage.producer.produce(stage.topics.events, value, "sub", headers=[(MANIFEST, manifest)])
    stage.producer.flush(10 * PATIENCE)
    policy = replace(QUICK, organizations=("eu",))
    async with lago_sandbox() as lago, http_client(trust_env=False) as http:
        parts = stage.parts(policy, quick_delivery(lago, http), organizations={"eu": lambda: eu})
        async with stage.running("sink", parts):
            await soon(lambda: eu.taken)
    assert (eu.taken, len(readers)) == (["eu-1"], 2)
    assert not stage.sensors.halted


@pytest.mark.parametrize("known_by", ["an event", "an org"])
async def test_the_partition_task_of_an_unconfigured_organisation_keeps_its_offset_and_reports_that_it_is_halted(
    kafka: Kafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, known_by: str
) -> None:
    monkeypatch.setattr(organization_lanes, "_HALTED_S", 0.2)
    committed: list[int | None] = []
    committing = TransactionalWriter.commit

    async def commit(self: TransactionalWriter, writes: Any, source: Any, offset: int | None, group: str) -> Any:
        if group.endswith("sink-eu"):
            committed.append(offset)
        return await committing(self, writes, source, offset, group)

    monkeypatch.setattr(TransactionalWriter, "commit", commit)
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=1)
    value = msgspec.json.encode(LagoEvent("eu-1", "sub", "ai_usage", "1764000000.000", "1.37", {}))
    if known_by == "an event":
        manifest = msgspec.json.encode(Manifest(0, 0, 0, 1, organization="eu"))
        stage.producer.produce(stage.topics.events, value, "sub", headers=[(MANIFEST, manifest)])
    else:
        record = OrgRecord("eu::acme", organization="eu")
        stage.producer.produce(stage.topics.orgs, msgspec.json.encode(record), "eu::acme")
    stage.producer.flush(10 * PATIENCE)
    async with lago_sandbox() as lago, http_client(trust_env=False) as http:
        async with stage.running("sink", stage.parts(QUICK, quick_delivery(lago, http))):
            if known_by == "an event":
                await soon(lambda: len(committed) >= 3)
                assert stage.sensors.halted == [(stage.topics.events, 0, "unknown_organization")]
                assert not stage.sensors.resumed, "an alarm that is reset at each attempt would never fire"
            else:
                await soon(lambda: len(committed) >= 1)
                assert not stage.sensors.halted, "nothing waits"
        assert (await lago.stats())["totals"]["events"] == 0
    assert set(committed) == {0}


@pytest.mark.parametrize("slowly", [False, True])
async def test_a_partition_task_behind_many_events_of_others_does_not_log_each_time_that_it_continues(
    kafka: Kafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, slowly: bool
) -> None:
    """Neither if its own event is not in the first batch, nor if the broker's first answer takes a while."""
    monkeypatch.setattr(organization_lanes, "_HALTED_S", 0.2)
    if slowly:
        monkeypatch.setattr(organization_lanes, "_IDLE_S", 0.001)
    opened, opening = 0, DeliveryWork.open

    async def open_(self: DeliveryWork) -> int:
        nonlocal opened
        opened += self._config.group.endswith("sink-eu")
        return await opening(self)

    monkeypatch.setattr(DeliveryWork, "open", open_)
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=1)
    value = msgspec.json.encode(LagoEvent("us-1", "sub", "ai_usage", "1764000000.000", "1.37", {}))
    for organization in [*["us"] * (0 if slowly else 1200), "eu"]:
        manifest = msgspec.json.encode(Manifest(0, 0, 0, 1, organization=organization))
        stage.producer.produce(stage.topics.events, value, "sub", headers=[(MANIFEST, manifest)])
    stage.producer.flush(10 * PATIENCE)
    async with lago_sandbox() as lago, http_client(trust_env=False) as http:
        parts = stage.parts(QUICK, quick_delivery(lago, http), organizations={"us": StuckDelivery})
        async with stage.running("sink", parts):
            await soon(lambda: opened >= 6)
            assert stage.sensors.halted == [(stage.topics.events, 0, "unknown_organization")]
            assert not stage.sensors.resumed


async def test_an_event_with_an_impossible_organisation_is_malformed(kafka: Kafka, topic_prefix: str) -> None:
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=1)
    manifest = msgspec.json.encode(Manifest(0, 0, 0, 1, organization="no name: it has spaces"))
    value = msgspec.json.encode(LagoEvent("x-1", "sub", "ai_usage", "1764000000.000", "1.37", {}))
    stage.producer.produce(stage.topics.events, value, "sub", headers=[(MANIFEST, manifest)])
    stage.producer.flush(10 * PATIENCE)
    async with lago_sandbox() as lago, http_client(trust_env=False) as http:
        async with stage.running("sink", stage.parts(QUICK, quick_delivery(lago, http))):
            await soon(lambda: len(stage.sensors.receipts) == 1)
        assert (await lago.stats())["totals"]["events"] == 0
    assert [(one.status, one.reason) for one in stage.sensors.receipts] == [("failed", "malformed")]
