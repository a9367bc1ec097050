"""A Faust consumer uses long fetch requests only while they can delay nothing."""

from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from streams.runtime import faust_transport
from streams.runtime.fetch_pace import BUSY, QUIET, QUIET_AFTER_S, FetchPace


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


HOME = TP("topic", 0)


class Consumer:
    """An aiokafka consumer with two partitions, and the result of its next fetch."""

    def __init__(self) -> None:
        self._fetcher, self.found = SimpleNamespace(), dict[TP, list[SimpleNamespace]]()

    def assignment(self) -> set[TP]:
        return {HOME, TP("topic", 1)}

    def seek(self, *place: object) -> None: ...


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Consumer]:
    """The fetch thread of a consumer that has been idle for an hour, both partitions at offset 0."""

    async def fetched(self: object, consumer: Consumer, partitions: object) -> dict[TP, list[SimpleNamespace]]:
        return consumer.found

    monkeypatch.setattr(faust_transport.driver.AIOKafkaConsumerThread, "_fetch_records", fetched)
    consumer, clock = Consumer(), Clock()
    thread: Any = object.__new__(faust_transport._ConsumerThread)
    thread.stamps, thread.pace = dict.fromkeys(consumer.assignment(), 0), FetchPace(clock)
    monkeypatch.setattr(faust_transport._ConsumerThread, "_ensure_consumer", lambda _: consumer)
    clock.now += 3600
    return thread, consumer


async def test_a_fetch_without_records_in_any_partition_leaves_it_quiet(quiet: tuple[Any, Consumer]) -> None:
    thread, consumer = quiet
    assert await thread._fetch_records(consumer, consumer.assignment()) == {}
    assert (thread.pace.waits(), consumer._fetcher._fetch_max_wait_ms) == (QUIET, QUIET.held_ms)


async def test_records_make_it_busy(quiet: tuple[Any, Consumer]) -> None:
    thread, consumer = quiet
    consumer.found = {HOME: [SimpleNamespace(offset=4)]}
    assert (await thread._fetch_records(consumer, consumer.assignment()))[HOME].next_offset == 5
    assert (thread.pace.waits(), consumer._fetcher._fetch_max_wait_ms) == (BUSY, BUSY.held_ms)


@pytest.mark.parametrize("fetched", [set(), {HOME}], ids=["none", "one of two"])
async def test_a_partition_that_is_not_fetched_makes_it_busy(quiet: tuple[Any, Consumer], fetched: set[TP]) -> None:
    """It may be resumed at any moment, and its first fetch must not wait behind a long one."""
    thread, consumer = quiet
    await thread._fetch_records(consumer, fetched)
    assert (thread.pace.waits(), consumer._fetcher._fetch_max_wait_ms) == (BUSY, BUSY.held_ms)


async def test_a_seek_makes_it_busy(quiet: tuple[Any, Consumer]) -> None:
    thread, _ = quiet
    assert await thread._seek_partition(HOME, 7)
    assert (thread.pace.waits(), thread.stamps[HOME]) == (BUSY, 7)


def waits_of(pace: FetchPace) -> tuple[int, float]:
    fetcher = SimpleNamespace()
    pace.apply(SimpleNamespace(_fetcher=fetcher))
    return fetcher._fetch_max_wait_ms, fetcher._fetcher_timeout


def test_a_consumer_starts_busy_and_is_quiet_after_a_while_without_activity() -> None:
    clock = Clock()
    pace = FetchPace(clock)
    assert (pace.waits(), waits_of(pace)) == (BUSY, (BUSY.held_ms, BUSY.look_s))
    clock.now += QUIET_AFTER_S
    assert (pace.waits(), waits_of(pace)) == (QUIET, (QUIET.held_ms, QUIET.look_s))


def test_any_activity_makes_it_busy_again() -> None:
    clock = Clock()
    pace = FetchPace(clock)
    clock.now += 3600
    assert pace.waits() == QUIET
    pace.busy()
    clock.now += QUIET_AFTER_S * 0.99
    assert (pace.waits(), waits_of(pace)) == (BUSY, (BUSY.held_ms, BUSY.look_s))


def test_a_quiet_consumer_fetches_a_fifth_as_often() -> None:
    assert QUIET.held_ms >= 5 * BUSY.held_ms
    assert QUIET.records_s >= 5 * BUSY.records_s
    assert QUIET.look_s >= 5 * BUSY.look_s
