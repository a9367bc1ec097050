"""Delivery while Lago is unavailable, slow or refuses single events: what is held, what is isolated, which batch probes
first.
"""

import asyncio

import pytest
from structlog.testing import capture_logs

from streams.core.delivery.batches import EventOutcome, Item
from streams.core.delivery.circuit_breaker import Breaker, State
from streams.delivery.engine import PROBE_EVENTS
from tests.support.scripted_lago import ScriptedLago, item
from tests.support.sink import POLICY, Sink, deliver, first, kinds_and_reasons
from tests.support.virtual_time import run_virtually, virtual_now


@pytest.mark.parametrize("status", ["401", "402", "403", "404", "405", "408", "415", "429", "500", "503", "connect"])
def test_a_single_batch_is_held_and_resent_unchanged_while_lago_refuses_it(status: str) -> None:
    lago = ScriptedLago(fault=first(status, times=7))
    assert kinds_and_reasons(deliver(lago, [item("a"), item("b")])) == [("delivered", "accepted")] * 2
    assert len(set(lago.bodies)) == 1
    assert len(lago.bodies) == 8


def test_a_key_that_is_refused_for_a_day_loses_no_event() -> None:
    lago = ScriptedLago(fault=lambda _number, _ids: "401" if virtual_now() < 24 * 3600 else None)
    assert kinds_and_reasons(deliver(lago, [item("a"), item("b")])) == [("delivered", "accepted")] * 2
    assert len(lago.posts) > 1000


def test_a_single_batch_waits_as_long_as_lago_asked() -> None:
    lago = ScriptedLago(fault=first("503"))

    async def main() -> None:
        await Sink(lago).delivery.deliver([item("a")])
        assert virtual_now() == pytest.approx(20.02)

    run_virtually(main())


def test_every_batch_respects_lagos_rate_limit() -> None:
    """429 with a reset in 2 s at t=0.01: no post before t=2.01, the first one small."""
    lago = ScriptedLago(fault=first("429"))
    moments: list[float] = []

    async def main() -> None:
        answer = lago.post_batch

        async def timed(body: bytes) -> object:
            moments.append(virtual_now())
            return await answer(body)

        lago.post_batch = timed  # type: ignore[method-assign,assignment]
        await Sink(lago, concurrency=asyncio.Semaphore(1)).delivery.deliver([item(f"t{n}") for n in range(300)])

    run_virtually(main())
    assert moments[0] == 0
    assert min(moments[1:]) >= 2.01
    assert len(lago.posts[1]) == PROBE_EVENTS
    assert len(lago.store) == 300


def test_an_open_breaker_is_probed_with_lago_s_health_and_then_one_small_batch() -> None:
    lago = ScriptedLago(fault=first("connect"), sick=True)

    async def main() -> None:
        sink = Sink(lago)
        running = asyncio.ensure_future(sink.delivery.deliver([item(f"t{n}") for n in range(50)]))
        await asyncio.sleep(300)
        assert (sink.breaker.state, sink.breaker.reason) == (State.OPEN, "unhealthy")
        assert len(lago.posts) == 1
        assert lago.health_checks > 5
        lago.sick = False
        await running
        assert sink.breaker.state is State.CLOSED

    run_virtually(main())
    assert [len(ids) for ids in lago.posts] == [50, PROBE_EVENTS, 40]


def test_a_bad_event_is_isolated_while_the_others_pass() -> None:
    lago = ScriptedLago(poison=frozenset({"t37"}))
    outcomes = deliver(lago, [item(f"t{n}") for n in range(300)])
    assert kinds_and_reasons(outcomes[:37] + outcomes[38:]) == [("delivered", "accepted")] * 299
    assert (outcomes[37].kind, outcomes[37].reason, outcomes[37].maybe_sent) == ("retry", "http_500", True)
    assert len(lago.posts) < 40


def test_a_partition_task_with_only_one_bad_event_is_not_blocked_forever() -> None:
    lago = ScriptedLago(poison=frozenset({"a"}))
    outcomes = deliver(lago, [item("a")])
    assert kinds_and_reasons(outcomes) == [("retry", "http_500")]
    assert outcomes[0].attempts == POLICY.alone_after


def test_successes_before_its_first_failure_are_no_evidence_against_a_batch() -> None:
    lago = ScriptedLago(fault=lambda number, _ids: "500" if 0 < number < 8 else None)

    async def main() -> None:
        sink = Sink(lago).delivery
        await sink.deliver([item("earlier")])
        assert kinds_and_reasons(await sink.deliver([item("a"), item("b")])) == [("delivered", "accepted")] * 2

    run_virtually(main())
    assert lago.posts[1:] == [["a", "b"]] * 8


def test_an_outage_that_starts_while_a_batch_is_split_loses_no_event() -> None:
    """a+b fail at 0 s, 0.3 s and 0.8 s while another batch passes at 0.5 s: they are split; from then to 60 s nothing
    passes.
    """
    lago = ScriptedLago(fault=lambda _number, ids: "500" if virtual_now() < 60 and ids != ["other"] else None)

    async def main() -> None:
        breaker = Breaker(POLICY)
        suspect = asyncio.ensure_future(Sink(lago, breaker).delivery.deliver([item("a"), item("b")]))
        await asyncio.sleep(0.5)
        await Sink(lago, breaker).delivery.deliver([item("other")])
        assert kinds_and_reasons(await suspect) == [("delivered", "accepted")] * 2

    run_virtually(main())
    assert ["a"] in lago.posts


def test_two_partition_tasks_with_bad_events_cannot_keep_the_breaker_open_for_a_third() -> None:
    lago = ScriptedLago(poison=frozenset({"x", "y"}))

    async def main() -> None:
        breaker = Breaker(POLICY)
        first_lane, second_lane, good_lane = (Sink(lago, breaker).delivery for _ in range(3))
        poisoned = [
            asyncio.ensure_future(partition_task.deliver([item(name)]))
            for partition_task, name in ((first_lane, "x"), (second_lane, "y"))
        ]
        while str(breaker.state) == "closed":
            await asyncio.sleep(0.1)
        async with asyncio.timeout(10):
            assert kinds_and_reasons(await good_lane.deliver([item("good")])) == [("delivered", "accepted")]
        assert breaker.state is State.CLOSED
        assert [kinds_and_reasons(outcomes) for outcomes in await asyncio.gather(*poisoned)] == [
            [("retry", "http_500")]
        ] * 2

    run_virtually(main())


def test_in_an_outage_the_breaker_holds_the_posts_and_no_event_is_given_up_for_many_minutes() -> None:
    """Lago answers its health check and fails every post: 4 partition tasks of 300 events lose none to retries in 10
    minutes.
    """
    lago = ScriptedLago(fault=lambda _number, _ids: "500" if virtual_now() < 600 else None)

    async def main() -> list[list[EventOutcome]]:
        breaker, permits = Breaker(POLICY), asyncio.Semaphore(4)
        partition_tasks = [Sink(lago, breaker, permits).delivery for _ in range(4)]
        return await asyncio.gather(
            *(
                partition_task.deliver([item(f"{n}-{m}") for m in range(300)])
                for n, partition_task in enumerate(partition_tasks)
            )
        )

    outcomes = [outcome for partition_task in run_virtually(main()) for outcome in partition_task]
    assert {outcome.kind for outcome in outcomes} == {"delivered"}
    assert len(lago.store) == 1200


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.015, 0.3, 0.6, 1.1, 2.5, 7.0])
@pytest.mark.parametrize("fault", ["500", "connect", "429", "timeout after storing"])
def test_a_cancelled_partition_task_leaves_nothing_that_could_block_the_others(fault: str, after_s: float) -> None:
    lago = ScriptedLago(fault=lambda _number, _ids: fault if virtual_now() < 5 else None)
    items = [item(f"t{n}") for n in range(150)]

    async def main() -> None:
        breaker, permits = Breaker(POLICY), asyncio.Semaphore(1)
        revoked = asyncio.ensure_future(Sink(lago, breaker, permits).delivery.deliver(items))
        other = asyncio.ensure_future(Sink(lago, breaker, permits).delivery.deliver([item("other")]))
        await asyncio.sleep(after_s)
        revoked.cancel()
        await asyncio.wait([revoked])
        async with asyncio.timeout(120):
            assert (await other)[0].kind == "delivered"
        again = [Item(one.transaction_id, one.value, resent=True) for one in items]
        async with asyncio.timeout(120):
            assert {one.kind for one in await Sink(lago, breaker, permits).delivery.deliver(again)} == {"delivered"}
        assert permits._value == 1

    run_virtually(main())
    assert len(lago.store) == 151


def test_a_probe_that_is_cancelled_before_its_answer_lets_the_next_one_start() -> None:
    lago = ScriptedLago(fault=first("connect"), latency_s=5)

    async def main() -> None:
        breaker = Breaker(POLICY)
        revoked = asyncio.ensure_future(Sink(lago, breaker).delivery.deliver([item("a")]))
        while breaker.state is not State.HALF_OPEN:
            await asyncio.sleep(0.1)
        other = asyncio.ensure_future(Sink(lago, breaker).delivery.deliver([item("b")]))
        await asyncio.sleep(1)
        revoked.cancel()
        async with asyncio.timeout(12):
            assert kinds_and_reasons(await other) == [("delivered", "accepted")]

    run_virtually(main())


def test_an_outage_is_logged_once_with_its_reason_and_once_at_its_end() -> None:
    """Ten failed probes are one outage: a log that repeats itself is not read."""
    with capture_logs() as logged:
        deliver(ScriptedLago(fault=first("401", times=10)), [item("a")])
    assert [one["event"] for one in logged] == ["breaker_opened", "breaker_closed"]
    assert logged[0]["reason"] == "http_401"
