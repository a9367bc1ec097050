"""The lane of a further Lago organisation keeps its place, however long the organisation takes nothing or has nothing to take."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest

from schemas.records import LagoEvent, Manifest
from streams.agents import organization_lanes
from streams.core.delivery.batches import EventOutcome
from streams.runtime.transactions import TransactionalWriter
from streams.state.step_writes import MANIFEST
from tests.support.eventually import soon
from tests.support.kafka import Kafka
from tests.support.posting import quick_delivery
from tests.support.sandbox import lago_sandbox
from tests.support.stage import QUICK, Stage


class Stuck:
    """A delivery to an organisation that takes nothing."""

    async def deliver(self, *_: object) -> list[EventOutcome]:
        await asyncio.Event().wait()
        return []


class Spans:
    """Counts events whose spans began and have not ended."""

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
async def test_a_lane_without_progress_commits_its_offset_again_and_again(
    kafka: Kafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, events: int
) -> None:
    """Kafka forgets an offset of a group without members 7 days after its last commit."""
    monkeypatch.setattr(organization_lanes, "_SESSION_S", 0.3)
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
    stage.producer.flush(10)
    policy = replace(QUICK, organizations=("eu",))
    async with lago_sandbox() as lago, httpx.AsyncClient(trust_env=False) as http:
        parts = stage.parts(policy, quick_delivery(lago, http), organizations={"eu": Stuck}, traces=spans)
        async with stage.running("sink", parts):
            await soon(lambda: len(committed) >= 4 and spans.begun >= 3 * events)
            assert spans.open <= events
    assert spans.open == 0
    assert set(committed) == {0}
    assert not stage.sensors.halted
