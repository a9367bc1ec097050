"""Another server answers instead of Lago, or Lago refuses every event: no event becomes a dead letter for that."""

import asyncio
from collections.abc import Callable, Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.delivery.batches import EventOutcome, Item
from streams.core.delivery.circuit_breaker import Breaker, State
from streams.core.delivery.dead_letter_storm import ALIKE, WITHIN_S, Deaths
from tests.support.scripted_lago import ScriptedLago, event, item
from tests.support.sink import POLICY, Sink, kinds_and_reasons
from tests.support.virtual_time import run_virtually, virtual_now

INVALID = {"timestamp": ["invalid_format"]}


def of(subscription: str, name: str) -> Item:
    one = event(name)
    one.external_subscription_id = subscription
    return Item(name, msgspec.json.encode(one), resent=False)


@pytest.mark.parametrize("fault", ["400", "413", "422", "proxy page", "other echo"])
@pytest.mark.parametrize("count", [1, 50, 200])
def test_hours_of_html_answers_make_no_event_a_dead_letter(fault: str, count: int) -> None:
    """From an HTTPS port asked in plain HTTP: 200 valid events had become 200 dead letters after 1.3 s."""
    lago = ScriptedLago(fault=lambda _number, _ids: fault if virtual_now() < 2 * 3600 else None)

    async def main() -> list[EventOutcome]:
        sink = Sink(lago)
        running = asyncio.ensure_future(sink.delivery.deliver([item(f"t{n}") for n in range(count)]))
        await asyncio.sleep(3600)
        assert sink.breaker.state is not State.CLOSED
        assert sink.breaker.reason == {"413": "too_large", "proxy page": "bad_answer", "other echo": "bad_answer"}.get(
            fault, "not_lago"
        )
        return await running

    outcomes = run_virtually(main())
    assert {outcome.kind for outcome in outcomes} == {"delivered"}
    assert len(lago.store) == count


def test_one_event_that_a_proxy_refuses_goes_to_retry_while_the_others_pass() -> None:
    lago = ScriptedLago(fault=lambda _number, ids: "400" if "t7" in ids else None)

    async def main() -> list[EventOutcome]:
        return await Sink(lago).delivery.deliver([item(f"t{n}") for n in range(250)])

    outcomes = run_virtually(main())
    assert kinds_and_reasons([outcomes[7]]) == [("retry", "not_lago")]
    assert kinds_and_reasons(outcomes[:7] + outcomes[8:]) == [("delivered", "accepted")] * 249


def refusing(names: Iterable[str], until_s: float = 600) -> ScriptedLago:
    """A Lago that refuses every event of `names` until a given time."""

    class UninvoicedEvent(ScriptedLago):
        def _answer(self, body: bytes) -> object:  # type: ignore[override]
            if virtual_now() >= until_s:
                self.index_errors = {}
            return super()._answer(body)

    return UninvoicedEvent(index_errors=dict.fromkeys(names, INVALID))


def test_events_of_many_subscriptions_with_the_same_refusal_are_held_until_a_probe_passes() -> None:
    names = [f"t{n}" for n in range(200)]
    lago = refusing(names)

    async def main() -> list[EventOutcome]:
        sink = Sink(lago)
        running = asyncio.ensure_future(
            sink.delivery.deliver([of(f"sub-{n % 20}", name) for n, name in enumerate(names)])
        )
        await asyncio.sleep(300)
        assert sink.breaker.state is not State.CLOSED
        assert sink.breaker.reason == "dying_alike"
        return await running

    outcomes = run_virtually(main())
    assert kinds_and_reasons(outcomes) == [("delivered", "accepted")] * 200
    assert len(lago.posts) < 300


def test_refused_events_become_dead_letters_once_other_events_are_accepted() -> None:
    """Five bad events of five subscriptions, alone: held until another partition task's event is accepted, then refused
    one by one.
    """
    names = [f"t{n}" for n in range(5)]
    lago = ScriptedLago(index_errors=dict.fromkeys(names, INVALID))

    async def main() -> list[EventOutcome]:
        breaker = Breaker(POLICY)
        bad = asyncio.ensure_future(Sink(lago, breaker).delivery.deliver([of(f"sub-{name}", name) for name in names]))
        await asyncio.sleep(5)
        assert not bad.done()
        await Sink(lago, breaker).delivery.deliver([item("good")])
        async with asyncio.timeout(120):
            return await bad

    assert kinds_and_reasons(run_virtually(main())) == [("dead", "invalid_timestamp")] * 5


@pytest.mark.parametrize(
    "whose",
    [lambda _n: "one", lambda n: f"sub-{n % 2}"],
    ids=["one subscription", "two subscriptions"],
)
def test_refused_events_of_few_subscriptions_become_dead_letters_at_once(whose: Callable[[int], str]) -> None:
    names = [f"t{n}" for n in range(30)]
    lago = ScriptedLago(index_errors=dict.fromkeys(names, INVALID))

    async def main() -> list[EventOutcome]:
        return await Sink(lago).delivery.deliver([of(whose(n), name) for n, name in enumerate(names)])

    assert kinds_and_reasons(run_virtually(main())) == [("dead", "invalid_timestamp")] * 30
    assert len(lago.posts) == 1


def test_refused_events_beside_accepted_ones_become_dead_letters_at_once_for_any_number_of_subscriptions() -> None:
    names = [f"t{n}" for n in range(100)]
    lago = ScriptedLago(index_errors=dict.fromkeys(names[::2], INVALID))

    async def main() -> list[EventOutcome]:
        return await Sink(lago).delivery.deliver([of(f"sub-{n}", name) for n, name in enumerate(names)])

    assert [outcome.kind for outcome in run_virtually(main())] == ["dead", "delivered"] * 50
    assert len(lago.posts) == 2


def test_a_third_refused_subscription_in_a_minute_causes_doubt_and_an_accepted_event_ends_it() -> None:
    deaths = Deaths()
    assert not deaths.doubtful([("r", "a")], 0.0)
    assert not deaths.doubtful([("r", "b")], WITHIN_S)
    assert not deaths.doubtful([("other", "c")], WITHIN_S)
    assert deaths.doubtful([("r", "c")], WITHIN_S)
    assert not deaths.doubtful([("r", "c")], WITHIN_S + 0.1), "the first is too long ago"
    deaths.some_passed()
    assert not deaths.doubtful([("r", "d")], WITHIN_S + 0.2)
    assert deaths.accepted == 1


@given(st.lists(st.tuples(st.sampled_from("rs"), st.sampled_from("abcd"), st.floats(0, 20)), max_size=30))
def test_at_most_two_subscriptions_in_a_minute_get_dead_letters_for_one_reason_without_doubt(
    died: list[tuple[str, str, float]],
) -> None:
    deaths, now, believed = Deaths(), 0.0, list[tuple[str, str, float]]()
    for reason, subscription, later in died:
        now += later
        if not deaths.doubtful([(reason, subscription)], now):
            believed.append((reason, subscription, now))
    for reason, _, at in believed:
        alike = {whose for why, whose, when in believed if why == reason and 0 <= at - when <= WITHIN_S}
        assert len(alike) < ALIKE
