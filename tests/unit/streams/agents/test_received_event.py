"""Each part of an event's record is decoded once, no matter how often it is used."""

from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition

from schemas.policy import MeterPolicy
from schemas.records import LagoEvent, Manifest
from schemas.topics import TopicNames
from streams.agents import organization_lanes, received_event
from streams.agents.received_event import ReceivedEvent
from streams.agents.sink import DeliveryConfig, DeliveryWork
from streams.core.delivery.batches import EventOutcome

TOPICS = TopicNames.with_prefix("")
MANY = 7


def record(number: int, organization: str = "", **headers: bytes) -> Any:
    event = LagoEvent(f"meterbridge-topic-0-{number}", "sub", "ai_usage", "1795176000.000", "1", {})
    manifest = msgspec.json.encode(Manifest(0, number, number, 3, (), "meterbridge", organization))
    own = [("manifest", manifest), *headers.items()]
    at = {"topic": TOPICS.events, "partition": 0, "offset": number, "timestamp": 1_795_176_000_000}
    return SimpleNamespace(value=msgspec.json.encode(event), key=b"sub", headers=own, **at)


class Refusing:
    """A delivery that sends every event to the retry topic, whose records have all headers of the event."""

    items: Sequence[Any] = ()

    async def deliver(self, items: Sequence[Any], *_: object) -> list[EventOutcome]:
        self.items = items
        return [EventOutcome("retry", "lago_5xx", "", 1) for _ in items]


class Table:
    def __init__(self) -> None:
        self.table: dict[str, Any] = {}

    async def wait_fresh(self, _limit_s: float) -> None: ...


class Committed:
    """A writer that keeps the written records."""

    writes: Sequence[Any] = ()

    async def commit(self, writes: Sequence[Any], *_: object) -> None:
        self.writes = writes


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each part was decoded."""
    counts = Counter[str]()

    def counting(name: str) -> Callable[[Any], Any]:
        decode: Callable[[Any], Any] = getattr(received_event, name)

        def counted(what: Any) -> Any:
            counts[name] += 1
            return decode(what)

        return counted

    for name in ("read_event", "read_manifest", "delivery_history_of"):
        monkeypatch.setattr(received_event, name, counting(name))
    return counts


def config_of(organization: str) -> DeliveryConfig:
    async def sleep(_seconds: float) -> None: ...

    return DeliveryConfig(
        *({}, TOPICS, "sink", MeterPolicy(), 5, 1.0, 60.0, lambda: 0.5, lambda: 1_795_176_000_000_000, sleep),
        organization=organization,
    )


def work_of(organization: str = "") -> tuple[DeliveryWork, Refusing, Committed]:
    config = config_of(organization)
    delivery, written = Refusing(), Committed()
    sensors: Any = SimpleNamespace(settled=lambda _: None)
    orgs: Any = Table()
    work = DeliveryWork(TopicPartition(TOPICS.events, 0), config, delivery, orgs, sensors)
    setattr(work, "_writer", written)  # noqa: B010  # a private one: `open` would need Kafka
    return work, delivery, written


async def test_the_sink_decodes_each_part_of_an_event_once(decoded: Counter[str]) -> None:
    work, delivery, written = work_of()
    assert await work.process([record(number) for number in range(MANY)]) == MANY
    assert len(delivery.items) == MANY and len(written.writes) == 2 * MANY
    assert decoded == {"read_event": MANY, "read_manifest": MANY, "delivery_history_of": MANY}


async def test_of_other_deployments_events_only_the_manifest_is_decoded(decoded: Counter[str]) -> None:
    work, delivery, _ = work_of("eu")
    received = [ReceivedEvent(record(number, "us")) for number in range(MANY)]
    next(
        (one for one in received if work.is_own(one)), None
    )  # like a partition task that looks for its oldest waiting event
    assert await work.process_received(received) == MANY
    assert decoded == {"read_manifest": MANY} and not delivery.items


class Asking(Refusing):
    """A delivery that asks at each post whether other events wait behind it."""

    def __init__(self) -> None:
        self.waited: list[bool] = []

    async def deliver(self, items: Sequence[Any], *how: Any) -> list[EventOutcome]:
        self.waited.append(how[-1]())
        return await super().deliver(items)


async def test_a_partition_task_that_looks_at_waiting_events_does_not_decode_them_again(
    decoded: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(organization_lanes, "SETTLE_LIMIT", 1)
    delivery, orgs, sensors = Asking(), Table(), SimpleNamespace(settled=lambda _: None)
    needs: list[Any] = [config_of("eu"), delivery, orgs, sensors]
    lane = organization_lanes.OrganizationLane(TopicPartition(TOPICS.events, 0), *needs)
    setattr(lane.work, "_writer", Committed())  # noqa: B010  # a private one: `open` would need Kafka
    lane._fetched.extend(ReceivedEvent(record(number, "eu")) for number in range(MANY))
    for _ in range(MANY):
        await lane._post()
    assert delivery.waited == [True] * (MANY - 1) + [False]
    assert decoded == {"read_event": MANY, "read_manifest": MANY, "delivery_history_of": MANY}


@pytest.mark.parametrize(
    ("organization", "whose"), [("eu", "eu"), ("", ""), ("not a name", ""), ("-eu", ""), ("eu:x", "")]
)
def test_a_record_names_its_lago_organisation_and_an_impossible_name_means_the_default(
    organization: str, whose: str
) -> None:
    assert ReceivedEvent(record(1, organization)).organization == whose


def test_an_unreadable_record_is_read_once_too(decoded: Counter[str]) -> None:
    broken = record(1, attempt=b"x")
    broken.value, broken.headers[0] = b"{", ("manifest", b"{")
    received = ReceivedEvent(broken)
    for _ in range(3):
        assert (received.event, received.manifest, received.calls, received.history.attempt) == (None, None, 0, 0)
    assert decoded == {"read_event": 1, "read_manifest": 1, "delivery_history_of": 1}
