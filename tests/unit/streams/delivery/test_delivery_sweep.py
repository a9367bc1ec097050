"""Delivery with every mixture of faults that hypothesis generates: no event twice, none lost, and it ends."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import LagoEvent
from streams.core.delivery.backoff import RetryPolicy
from streams.core.delivery.batches import MAX_BODY_BYTES, EventOutcome, Item
from streams.core.delivery.circuit_breaker import Breaker
from streams.core.delivery.maybe_sent import lago_may_have
from streams.delivery.engine import Delivery
from tests.support.scripted_lago import EXISTS, FAULTS, ScriptedLago, event, item
from tests.support.virtual_time import run_virtually, virtual_now

#: What one event is, apart from good.
ODDITIES: dict[str, object] = {
    "invalid": {"timestamp": ["invalid_format"]},
    "unexpressed": "expression_evaluation_failed: Variable: b not found",
    "hidden": EXISTS,  # refused as a repeat, and not to be found
    "poison": None,
    "same before": None,
    "other before": None,
}
MAYBE_SENT = "resent"


@dataclass(frozen=True)
class World:
    """One example: partition tasks of (id, kind of fault or None), and what happens to the first posts."""

    partition_tasks: list[list[tuple[str, str | None]]]
    faults: list[str | None]
    chances: list[float]
    batch_size: int
    permits: int
    unique: bool


@st.composite
def worlds(draw: st.DrawFn, *, unique: bool = True) -> World:
    odd = st.sampled_from([None] * 8 + [*ODDITIES, MAYBE_SENT]) if unique else st.sampled_from([None, "poison"])
    names = st.integers(0, 40)
    partition_tasks = [
        [(f"{partition_task}-{name}", draw(odd)) for name in draw(st.lists(names, max_size=25, unique=not unique))]
        for partition_task in range(draw(st.integers(1, 3)))
    ]
    return World(
        partition_tasks,
        draw(st.lists(st.sampled_from([None, None, *FAULTS]), max_size=40)),
        draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=5)),
        draw(st.integers(1, 12)),
        draw(st.integers(1, 4)),
        unique,
    )


def build(world: World) -> tuple[ScriptedLago, list[list[Item]], dict[str, str | None]]:
    """The Lago, the items of the partition tasks, and the fault of each id (that of its first occurrence)."""
    oddity: dict[str, str | None] = {}
    for partition_task in world.partition_tasks:
        for name, odd in partition_task:
            oddity.setdefault(name, odd)
    lago = ScriptedLago(
        fault=lambda number, _ids: world.faults[number] if number < len(world.faults) else None,
        index_errors={name: error for name, odd in oddity.items() if odd and (error := ODDITIES.get(odd))},
        poison=frozenset(name for name, odd in oddity.items() if odd == "poison"),
        unique=world.unique,
        store=[
            event(name, cents="1.25" if odd == "same before" else "777")
            for name, odd in oddity.items()
            if odd in ("same before", "other before")
        ],
    )
    items = [
        [item(name, resent=oddity[name] == MAYBE_SENT) for name, _ in partition_task]
        for partition_task in world.partition_tasks
    ]
    return lago, items, oddity


def deliveries(world: World, lago: ScriptedLago, chances: Iterator[float]) -> list[Delivery]:
    """One delivery for each partition task, with one breaker; call it in the loop that runs them."""
    policy = RetryPolicy(random=lambda: next(chances))
    breaker, permits = Breaker(policy), asyncio.Semaphore(world.permits)
    return [
        Delivery(
            lago,
            concurrency=permits,
            breaker=breaker,
            policy=policy,
            clock=virtual_now,
            sleep=asyncio.sleep,
            on_request=lambda *_request: None,
            batch_size=world.batch_size,
            resend_is_safe=lambda: world.unique,
        )
        for _ in world.partition_tasks
    ]


def run(world: World, lago: ScriptedLago, partition_tasks: list[list[Item]]) -> list[tuple[str, EventOutcome]]:
    async def main() -> list[list[EventOutcome]]:
        sinks = deliveries(world, lago, cycle(world.chances))
        return await asyncio.gather(*(one.deliver(items) for one, items in zip(sinks, partition_tasks, strict=True)))

    outcomes = run_virtually(main())
    assert [len(partition_task) for partition_task in outcomes] == [len(items) for items in partition_tasks]
    return [
        (one.transaction_id, outcome)
        for items, partition_task in zip(partition_tasks, outcomes, strict=True)
        for one, outcome in zip(items, partition_task, strict=True)
    ]


def check_posts(world: World, lago: ScriptedLago, partition_tasks: list[list[Item]]) -> None:
    values = {one.value for items in partition_tasks for one in items}
    for ids, body in zip(lago.posts, lago.bodies, strict=True):
        assert len(ids) == len(set(ids)) <= world.batch_size
        assert len(body) <= MAX_BODY_BYTES
        posted = body.removeprefix(b'{"events":[').removesuffix(b"]}").replace(b'},{"tr', b'}\n{"tr').split(b"\n")
        assert set(posted) <= values
    assert lago.most_in_flight <= world.permits


def ours(stored: list[LagoEvent], name: str) -> bool:
    return stored == [event(name)]


@settings(max_examples=400)
@given(worlds())
def test_every_event_is_billed_once_or_has_an_outcome(world: World) -> None:
    lago, partition_tasks, oddity = build(world)
    for name, outcome in run(world, lago, partition_tasks):
        stored = lago.stored(name)
        assert len(stored) <= 1
        match outcome.kind, outcome.reason:
            case "delivered", "already_exists" if oddity[name] in ("hidden", "other before"):
                # After an unknown outcome a repeat counts as ours without a lookup: one lookup for each event
                # would cost a hundred requests a batch, and only a foreign writer of our ids could be hidden.
                assert world.faults or "poison" in oddity.values()
            case "delivered", _:
                assert ours(stored, name)
            case "dead", "id_conflict":
                assert oddity[name] == "other before"
                assert stored == [event(name, cents="777")]
            case "dead", "invalid_timestamp":
                assert oddity[name] == "invalid"
                assert stored == []
            case "retry", "unconfirmed":
                assert oddity[name] == "hidden"
            case "retry", "expression_evaluation_failed":
                assert oddity[name] == "unexpressed"
            case "retry", _:
                assert "poison" in oddity.values() or world.faults
                assert stored == [] or outcome.maybe_sent or oddity[name] in ("same before", "other before")
            case _:
                raise AssertionError(outcome)
        assert len(outcome.detail) <= 500
        if outcome.kind != "delivered" and ours(stored, name):  # as a dead letter it is one that Lago may have
            assert lago_may_have(outcome.reason, None)
            assert lago_may_have(outcome.reason, outcome.maybe_sent) or oddity[name] == "same before"
    check_posts(world, lago, partition_tasks)


@settings(max_examples=150)
@given(worlds(unique=False))
def test_without_lagos_deduplication_an_event_is_also_billed_once_if_lago_shows_stored_events(world: World) -> None:
    lago, partition_tasks, _ = build(world)
    for name, outcome in run(world, lago, partition_tasks):
        assert len(lago.stored(name)) <= 1
        assert (outcome.kind != "delivered") or ours(lago.stored(name), name)
    check_posts(world, lago, partition_tasks)


@settings(max_examples=150)
@given(worlds(), st.floats(0, 60))
def test_a_new_owner_after_a_kill_at_any_moment_bills_the_rest_once(world: World, killed_at_s: float) -> None:
    lago, partition_tasks, oddity = build(world)

    async def first_owner() -> None:
        sinks = deliveries(world, lago, cycle(world.chances))
        tasks = [asyncio.ensure_future(one.deliver(items)) for one, items in zip(sinks, partition_tasks, strict=True)]
        await asyncio.sleep(killed_at_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run_virtually(first_owner())
    again = [[Item(one.transaction_id, one.value, resent=True) for one in items] for items in partition_tasks]
    for name, outcome in run(world, lago, again):
        assert len(lago.stored(name)) <= 1
        if outcome.kind == "delivered" and oddity[name] not in ("hidden", "other before"):
            assert ours(lago.stored(name), name)
        if outcome.kind == "dead":
            foreign = [event(name, cents="777")] if outcome.reason == "id_conflict" else []
            assert lago.stored(name) == foreign
