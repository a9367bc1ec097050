"""Delivery against a scripted Lago, in virtual time: what is posted, what is held, what comes out."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from streams.core.backoff import RetryPolicy
from streams.core.batches import Item, Outcome
from streams.core.breaker import Breaker, State
from streams.delivery import PROBE_EVENTS, Delivery
from tests.support.scripted_lago import EXISTS, ScriptedLago, event, item
from tests.support.virtual_time import NeverEnds, run_virtually, virtual_now

POLICY = RetryPolicy(random=lambda: 0.5)


class Sink:
    """A delivery with its neighbours at hand; several made from one `breaker` are lanes of one process."""

    def __init__(
        self,
        lago: ScriptedLago,
        breaker: Breaker | None = None,
        concurrency: asyncio.Semaphore | None = None,
        *,
        batch_size: int = 100,
        resend_is_safe: bool = True,
    ) -> None:
        self.breaker = breaker or Breaker(POLICY)
        self.requests: list[tuple[str, int, float]] = []
        self.delivery = Delivery(
            lago,
            concurrency=concurrency or asyncio.Semaphore(4),
            breaker=self.breaker,
            policy=POLICY,
            clock=virtual_now,
            sleep=asyncio.sleep,
            on_request=lambda *request: self.requests.append(request),
            batch_size=batch_size,
            resend_is_safe=lambda: resend_is_safe,
        )


def deliver(lago: ScriptedLago, items: Sequence[Item], *, batch_size: int = 100, safe: bool = True) -> list[Outcome]:
    async def main() -> list[Outcome]:
        return await Sink(lago, batch_size=batch_size, resend_is_safe=safe).delivery.deliver(items)

    return run_virtually(main())


def said(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    return [(outcome.kind, outcome.reason) for outcome in outcomes]


def first(fault: str, times: int = 1) -> Callable[[int, list[str]], str | None]:
    return lambda number, _ids: fault if number < times else None


def whenever(transaction_id: str, fault: str) -> Callable[[int, list[str]], str | None]:
    return lambda _number, ids: fault if transaction_id in ids else None


def test_nothing_to_deliver_is_nothing_posted() -> None:
    lago = ScriptedLago()
    assert deliver(lago, []) == []
    assert lago.posts == []


def test_events_are_posted_verbatim_in_full_batches_and_every_post_is_reported() -> None:
    lago = ScriptedLago()
    items = [item(f"t{n}", padding=n) for n in range(250)]

    async def main() -> None:
        sink = Sink(lago)
        outcomes = await sink.delivery.deliver(items)
        assert outcomes == [Outcome("delivered", "accepted", "", 1)] * 250
        assert sink.requests == [("post_batch", 200, pytest.approx(0.01))] * 3

    run_virtually(main())
    assert [len(ids) for ids in lago.posts] == [100, 100, 50]
    assert all(items[n].value in lago.bodies[n // 100] for n in range(250))


def test_no_more_requests_are_in_flight_than_there_are_permits() -> None:
    lago = ScriptedLago(fault=lambda number, _ids: "500 after storing" if number % 3 == 0 else None)

    async def main() -> None:
        permits = asyncio.Semaphore(2)
        breaker = Breaker(POLICY)
        lanes = [Sink(lago, breaker, permits, batch_size=5).delivery for _ in range(3)]
        await asyncio.gather(*(lane.deliver([item(f"{n}-{m}") for m in range(40)]) for n, lane in enumerate(lanes)))

    run_virtually(main())
    assert lago.most_in_flight == 2
    assert len(lago.store) == 120


def test_equal_ids_are_posted_one_after_the_other_and_the_same_event_counts_as_delivered() -> None:
    lago = ScriptedLago()
    assert said(deliver(lago, [item("a"), item("b"), item("a")])) == [
        ("delivered", "accepted"),
        ("delivered", "accepted"),
        ("delivered", "confirmed"),
    ]
    assert lago.posts == [["a", "b"], ["a"]]


def test_one_id_for_two_different_events_is_a_conflict_and_the_second_a_dead_letter() -> None:
    lago = ScriptedLago()
    assert said(deliver(lago, [item("a"), item("a", cents="9")])) == [
        ("delivered", "accepted"),
        ("dead", "id_conflict"),
    ]
    assert lago.store == [event("a")]


def test_a_repeat_of_what_an_earlier_owner_may_have_sent_is_delivered_without_a_look_up() -> None:
    lago = ScriptedLago(store=[event("b")])
    outcomes = deliver(lago, [item("a"), item("b", resent=True), item("c")])
    assert said(outcomes) == [("delivered", "accepted"), ("delivered", "already_exists"), ("delivered", "accepted")]
    assert lago.posts == [["a", "b", "c"], ["a", "c"]]
    assert lago.look_ups == []


def test_a_repeat_that_nobody_sent_and_lago_does_not_show_is_tried_again_later() -> None:
    lago = ScriptedLago(index_errors={"a": EXISTS})
    assert said(deliver(lago, [item("a")])) == [("retry", "unconfirmed")]
    assert lago.look_ups == ["a"]


@pytest.mark.parametrize(
    "fault",
    ["500 after storing", "timeout after storing", "no_answer after storing", "proxy page after storing", "short echo after storing"],
)
def test_a_batch_that_was_stored_without_our_knowing_is_billed_once(fault: str) -> None:
    lago = ScriptedLago(fault=first(fault))
    outcomes = deliver(lago, [item("a"), item("b")])
    assert said(outcomes) == [("delivered", "already_exists")] * 2
    assert [outcome.attempts for outcome in outcomes] == [2, 2]
    assert [one.transaction_id for one in lago.store] == ["a", "b"]


@pytest.mark.parametrize("status", ["401", "402", "403", "404", "405", "408", "415", "429", "500", "503", "connect"])
def test_a_lone_batch_is_held_and_resent_identically_however_long_lago_says_no(status: str) -> None:
    lago = ScriptedLago(fault=first(status, times=7))
    assert said(deliver(lago, [item("a"), item("b")])) == [("delivered", "accepted")] * 2
    assert len(set(lago.bodies)) == 1
    assert len(lago.bodies) == 8


def test_a_key_that_is_refused_for_a_week_costs_no_event() -> None:
    lago = ScriptedLago(fault=lambda _number, _ids: "401")
    with pytest.raises(NeverEnds):
        deliver(lago, [item("a"), item("b")])
    assert len(lago.posts) > 10_000


def test_lago_s_rate_limit_is_obeyed_by_everybody() -> None:
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


def test_bad_events_are_dead_letters_with_lago_s_reason_and_their_neighbours_are_delivered_at_once() -> None:
    lago = ScriptedLago(
        index_errors={
            "a": {"timestamp": ["invalid_format"]},
            "c": {"code": ["value_is_mandatory"]},
            "d": "expression_evaluation_failed: Variable: b not found",
        }
    )
    outcomes = deliver(lago, [item(name) for name in "abcde"])
    assert said(outcomes) == [
        ("dead", "invalid_timestamp"),
        ("delivered", "accepted"),
        ("dead", "missing_code"),
        ("retry", "expression_evaluation_failed"),
        ("delivered", "accepted"),
    ]
    assert outcomes[0].detail == "timestamp: invalid_format"
    assert lago.posts == [list("abcde"), list("be")]


def test_a_body_that_a_proxy_refuses_is_halved_until_the_culprit_is_alone() -> None:
    lago = ScriptedLago(too_heavy=20)
    names = ["a" * 4, "b" * 4, "c" * 30, "d" * 4, "e" * 4]
    assert said(deliver(lago, [item(name) for name in names])) == [
        ("delivered", "accepted"),
        ("delivered", "accepted"),
        ("dead", "too_large"),
        ("delivered", "accepted"),
        ("delivered", "accepted"),
    ]


def test_a_batch_longer_than_this_lago_takes_is_halved() -> None:
    lago = ScriptedLago()
    assert said(deliver(lago, [item(f"t{n}") for n in range(230)], batch_size=230)) == [("delivered", "accepted")] * 230
    assert max(len(ids) for ids in lago.posts[1:]) <= 115


def test_a_dead_letter_is_looked_up_first_if_an_earlier_post_may_have_stored_it() -> None:
    """500 after storing, then 413: declaring it dead would bill what the books call failed."""
    faults = ["500 after storing", "413"]
    lago = ScriptedLago(fault=lambda number, _ids: faults[number] if number < 2 else None)
    assert said(deliver(lago, [item("a")])) == [("delivered", "confirmed")]
    assert said(deliver(ScriptedLago(fault=first("413")), [item("a", resent=True)])) == [("dead", "too_large")]


def test_a_poisoned_event_is_isolated_while_the_others_pass() -> None:
    lago = ScriptedLago(poison=frozenset({"t37"}))
    outcomes = deliver(lago, [item(f"t{n}") for n in range(300)])
    assert said(outcomes[:37] + outcomes[38:]) == [("delivered", "accepted")] * 299
    assert (outcomes[37].kind, outcomes[37].reason, outcomes[37].maybe_sent) == ("retry", "http_500", True)
    assert len(lago.posts) < 40


def test_a_lane_with_nothing_but_one_poisoned_event_is_not_blocked_for_ever() -> None:
    lago = ScriptedLago(poison=frozenset({"a"}))
    outcomes = deliver(lago, [item("a")])
    assert said(outcomes) == [("retry", "http_500")]
    assert outcomes[0].attempts == POLICY.alone_after


def test_two_poisoned_lanes_cannot_keep_the_breaker_open_for_a_third_that_would_pass() -> None:
    lago = ScriptedLago(poison=frozenset({"x", "y"}))

    async def main() -> None:
        breaker = Breaker(POLICY)
        first_lane, second_lane, good_lane = (Sink(lago, breaker).delivery for _ in range(3))
        poisoned = [asyncio.ensure_future(lane.deliver([item(name)])) for lane, name in ((first_lane, "x"), (second_lane, "y"))]
        while breaker.state is State.CLOSED:
            await asyncio.sleep(0.1)
        async with asyncio.timeout(10):
            assert said(await good_lane.deliver([item("good")])) == [("delivered", "accepted")]
        assert breaker.state is State.CLOSED
        assert [said(outcomes) for outcomes in await asyncio.gather(*poisoned)] == [[("retry", "http_500")]] * 2

    run_virtually(main())


def test_in_an_outage_the_breaker_holds_the_posts_and_no_event_is_given_up_for_many_minutes() -> None:
    """Lago answers its health check and fails every post: 4 lanes of 300 events lose none to retries in 10 minutes."""
    lago = ScriptedLago(fault=lambda _number, _ids: "500" if virtual_now() < 600 else None)

    async def main() -> list[list[Outcome]]:
        breaker, permits = Breaker(POLICY), asyncio.Semaphore(4)
        lanes = [Sink(lago, breaker, permits).delivery for _ in range(4)]
        return await asyncio.gather(*(lane.deliver([item(f"{n}-{m}") for m in range(300)]) for n, lane in enumerate(lanes)))

    outcomes = [outcome for lane in run_virtually(main()) for outcome in lane]
    assert {outcome.kind for outcome in outcomes} == {"delivered"}
    assert len(lago.store) == 1200


def test_a_look_up_that_keeps_failing_sends_its_event_to_retry_and_only_that_one() -> None:
    lago = ScriptedLago(store=[event("b")], look_up_fails=lambda one: one == "b")
    outcomes = deliver(lago, [item(name) for name in "abc"])
    assert said(outcomes) == [("delivered", "accepted"), ("retry", "http_500"), ("delivered", "accepted")]
    assert not outcomes[1].maybe_sent


def test_where_a_repeat_would_be_billed_twice_it_is_looked_up_before_it_is_posted_again() -> None:
    faults = ["timeout after storing", None, "no_answer"]
    lago = ScriptedLago(unique=False, fault=lambda number, _ids: faults[number] if number < 3 else None)
    outcomes = deliver(lago, [item(name) for name in "abcd"], batch_size=2, safe=False)
    assert sorted(one.transaction_id for one in lago.store) == list("abcd")
    assert {outcome.kind for outcome in outcomes} == {"delivered"}
    assert said(outcomes).count(("delivered", "confirmed")) == 2


def test_an_earlier_owner_s_events_are_looked_up_too_where_a_repeat_would_be_billed_twice() -> None:
    lago = ScriptedLago(unique=False, store=[event("a"), event("b", cents="9")])
    assert said(deliver(lago, [item(name, resent=True) for name in "abc"], safe=False)) == [
        ("delivered", "confirmed"),
        ("dead", "id_conflict"),
        ("delivered", "accepted"),
    ]
    assert lago.posts == [["c"]]


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.015, 0.3, 0.6, 1.1, 2.5, 7.0])
@pytest.mark.parametrize("fault", ["500", "connect", "429", "timeout after storing"])
def test_a_cancelled_lane_leaves_nothing_behind_that_could_block_the_others(fault: str, after_s: float) -> None:
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
