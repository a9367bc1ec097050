"""How long a bad event delays good ones: in virtual time, in one batch, and at the front of a partition task."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types.tuples import TP

from streams.core.delivery.backoff import RETRY_POSTS, RetryPolicy, retry_delay
from streams.core.delivery.batches import EventOutcome, Item
from streams.core.delivery.circuit_breaker import Breaker, State
from streams.runtime.faust_transport import FetchBatch
from streams.runtime.partition_task import PartitionTask
from tests.support.scripted_lago import ScriptedLago, item
from tests.support.sink import POLICY, Sink, kinds_and_reasons
from tests.support.virtual_time import run_virtually, virtual_now
from tests.unit.streams.runtime.test_partition_task import FatalErrors, Source

#: As one event at the head of a topic held 126 others for 100 s.
OTHERS, AT_MOST_S = 126, 15.0


class Stored(ScriptedLago):
    """Records when it stored its last event, in virtual seconds."""

    last_s = 0.0

    def _store(self, events: Any) -> Any:
        refused = super()._store(events)
        if refused is None:
            self.last_s = virtual_now()
        return refused


@pytest.mark.parametrize("place", [0, 63, 126])
def test_a_bad_event_in_a_batch_delays_the_others_for_seconds(place: int) -> None:
    lago = Stored(poison=frozenset({f"t{place}"}))

    async def main() -> list[EventOutcome]:
        return await Sink(lago).delivery.deliver([item(f"t{n}") for n in range(OTHERS + 1)])

    outcomes = run_virtually(main())
    assert kinds_and_reasons(outcomes[:place] + outcomes[place + 1 :]) == [("delivered", "accepted")] * OTHERS
    assert kinds_and_reasons([outcomes[place]]) == [("retry", "http_500")]
    assert lago.last_s < AT_MOST_S


class Work:
    """A partition task's work that posts like the sink's, without Kafka."""

    def __init__(self, sink: Sink) -> None:
        self.done: dict[int, EventOutcome] = {}
        self._sink = sink
        self._suspect_below = 0
        self._following: Any = None

    def look_behind(self, following: Any) -> None:
        self._following = following

    async def open(self) -> int:
        return 0

    async def process(self, records: Sequence[Any]) -> int:
        items = [
            Item(
                f"t{record.offset}",
                item(f"t{record.offset}").value,
                resent=record.offset < self._suspect_below,
                suspect=record.offset < self._suspect_below,
            )
            for record in records
        ]
        outcomes = await self._sink.delivery.deliver(items, others_wait=lambda: self._following() is not None)
        if not outcomes:
            self._suspect_below = records[-1].offset + 1
            return int(records[0].offset)
        self.done.update(zip((record.offset for record in records), outcomes, strict=True))
        return int(records[-1].offset) + 1

    async def punctuate(self) -> None: ...

    async def close(self) -> None: ...

    def in_transaction(self) -> bool:
        return False


def fetch_batch(start: int, stop: int) -> FetchBatch:
    return FetchBatch([SimpleNamespace(offset=offset) for offset in range(start, stop)], start, stop)


@pytest.mark.parametrize("ticks", [False, True])
def test_a_bad_event_at_the_front_of_a_partition_delays_the_next_ones_for_seconds(*, ticks: bool) -> None:
    """It came first, alone; events that arrive while it is retried can show that Lago works."""
    lago = Stored(poison=frozenset({"t0"}))

    async def main() -> dict[int, EventOutcome]:
        work, death = Work(Sink(lago)), FatalErrors()
        partition_task = PartitionTask(TP("events", 0), work, Source(), death)
        partition_task.offer(fetch_batch(0, 1))
        await asyncio.sleep(1)
        if ticks:
            partition_task.punctuate()
        partition_task.offer(fetch_batch(1, 1 + OTHERS // 2))
        partition_task.offer(fetch_batch(1 + OTHERS // 2, 1 + OTHERS))
        async with asyncio.timeout(60):
            while len(work.done) < 1 + OTHERS:
                await asyncio.sleep(0.1)
        await partition_task.close()
        assert not death.errors
        return work.done

    done = run_virtually(main())
    assert kinds_and_reasons([done[n] for n in range(1, 1 + OTHERS)]) == [("delivered", "accepted")] * OTHERS
    assert kinds_and_reasons([done[0]]) == [("retry", "http_500")]
    assert lago.last_s < AT_MOST_S


def test_an_event_that_was_stored_before_it_was_given_back_is_delivered_and_not_billed_again() -> None:
    """The first event is stored and its answers are lost: it is posted again with the others, as our own repeat."""
    lago = Stored(fault=lambda _number, ids: "500 after storing" if ids == ["t0"] and virtual_now() < 3 else None)

    async def main() -> dict[int, EventOutcome]:
        work = Work(Sink(lago))
        partition_task = PartitionTask(TP("events", 0), work, Source(), FatalErrors())
        partition_task.offer(fetch_batch(0, 1))
        await asyncio.sleep(0.5)
        partition_task.offer(fetch_batch(1, 11))
        async with asyncio.timeout(60):
            while len(work.done) < 11:
                await asyncio.sleep(0.1)
        await partition_task.close()
        return work.done

    assert {outcome.kind for outcome in run_virtually(main()).values()} == {"delivered"}
    assert sorted(one.transaction_id for one in lago.store) == sorted(f"t{n}" for n in range(11))


def test_in_an_outage_a_large_batch_does_not_end_in_retries() -> None:
    """Both halves fail and nothing passes: the breaker opens, and from then on single probes are sent."""
    lago = ScriptedLago(fault=lambda _number, _ids: "500" if virtual_now() < 600 else None)

    async def main() -> None:
        sink = Sink(lago, Breaker(POLICY))
        running = asyncio.ensure_future(sink.delivery.deliver([item(f"t{n}") for n in range(100)]))
        await asyncio.sleep(500)
        assert sink.breaker.state is not State.CLOSED
        assert kinds_and_reasons(await running) == [("delivered", "accepted")] * 100

    run_virtually(main())
    assert len(lago.posts) < 150


def test_an_attempt_in_the_retry_topic_takes_seconds_so_that_attempts_are_retry_delay_apart() -> None:
    """RETRY_DELAY, twice that, four times that; with attempts of a minute and a half each this would not be visible."""
    policy = RetryPolicy(random=lambda: 0.5, alone_after=RETRY_POSTS)
    lago = Stored(poison=frozenset({"t0"}))

    async def main() -> list[float]:
        failed = []
        for attempt in range(1, 4):
            sink = Sink(lago, policy=policy)
            assert kinds_and_reasons(await sink.delivery.deliver([item("t0")])) == [("retry", "http_500")]
            failed.append(virtual_now())
            await asyncio.sleep(retry_delay(attempt, 60.0, jitter=0.5))
        return failed

    first, second, third = run_virtually(main())
    assert 60 <= second - first < 63
    assert 120 <= third - second < 123


@pytest.mark.parametrize("alone_after", [RETRY_POSTS, POLICY.alone_after])
def test_a_single_event_is_not_given_up_while_lago_reports_itself_unhealthy(alone_after: int) -> None:
    """A proxy answers 503 for a Lago that is down; in the retry topic three attempts would soon be used up."""
    lago = Stored(fault=lambda _number, _ids: "500" if virtual_now() < 3600 else None, sick=True)

    async def main() -> list[EventOutcome]:
        sink = Sink(lago, policy=RetryPolicy(random=lambda: 0.5, alone_after=alone_after))
        running = asyncio.ensure_future(sink.delivery.deliver([item("t0")]))
        await asyncio.sleep(3600)
        assert (sink.breaker.state is State.CLOSED, sink.breaker.reason) == (False, "unhealthy")
        lago.sick = False
        return await running

    assert kinds_and_reasons(run_virtually(main())) == [("delivered", "accepted")]
