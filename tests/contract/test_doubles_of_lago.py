"""One contract for every Lago that tests post to: the sandbox behind HTTP with our client, and its doubles in virtual
time.

The laws of delivery are proved on the doubles; they are worth as much as the doubles are like the sandbox, and the
sandbox is like Lago (docs/lago-behaviour.md).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest

from connectors.lago.client import LagoClient
from connectors.lago_sandbox.limits import SandboxLimit
from schemas.records import LagoEvent
from streams.core.delivery.batches import Item, body_of
from streams.core.delivery.verdicts import (
    Delivered,
    ErrorKind,
    EventError,
    RefusedEvents,
    RetryLater,
    SplitBatch,
    Verdict,
    same_event,
    verdict_on_batch,
)
from streams.delivery.lago_port import LagoEventsApi
from tests.support.limited_lago import LimitedLago
from tests.support.sandbox import KEY, lago_sandbox
from tests.support.scripted_lago import ScriptedLago, item

EXISTS = EventError(ErrorKind.EXISTS, "already_exists")
#: Whether the store is Postgres (else ClickHouse without deduplication), whether a refused batch stores nothing.
Open = Callable[..., AbstractAsyncContextManager[LagoEventsApi]]


@asynccontextmanager
async def sandbox(*, unique: bool = True, whole_batches: bool = True) -> AsyncIterator[LagoEventsApi]:
    options: dict[str, Any] = {"store": "postgres" if unique else "clickhouse"}
    if not whole_batches:
        options["version"] = "v1.38.0"
    async with lago_sandbox(**options) as lago, httpx.AsyncClient(trust_env=False) as http:
        yield LagoClient(http, lago.url, KEY)


@asynccontextmanager
async def scripted(**options: Any) -> AsyncIterator[LagoEventsApi]:
    yield ScriptedLago(latency_s=0, **options)


@asynccontextmanager
async def limited(**options: Any) -> AsyncIterator[LagoEventsApi]:
    lago = ScriptedLago(latency_s=0, **options)
    yield LimitedLago(SandboxLimit(10_000), latency_s=lambda: 0.0, away=(-2.0, -1.0), lago=lago)


@pytest.fixture(params=[sandbox, scripted, limited])
def opened(request: pytest.FixtureRequest) -> Open:
    created: Open = request.param
    return created


async def post(lago: LagoEventsApi, *items: Item) -> Verdict:
    return verdict_on_batch(await lago.post_batch(body_of([one.value for one in items])), len(items))


async def stored(lago: LagoEventsApi, *items: Item) -> list[bool]:
    found = [await lago.get_event(one.transaction_id) for one in items]
    return [one is not None and same_event(one, of.value) for one, of in zip(found, items, strict=True)]


async def test_an_accepted_event_is_stored_and_echoed(opened: Open) -> None:
    async with opened() as lago:
        assert await lago.healthy()
        assert await lago.get_event("a") is None
        assert await post(lago, item("a"), item("b", cents="0.000000000001")) == Delivered()
        assert await stored(lago, item("a"), item("b", cents="0.000000000001")) == [True, True]


async def test_a_repeat_is_reported_by_its_index_and_the_batch_stores_nothing(opened: Open) -> None:
    async with opened() as lago:
        await post(lago, item("a"))
        assert await post(lago, item("b"), item("a", cents="9"), item("c")) == RefusedEvents({1: EXISTS})
        assert await stored(lago, item("a"), item("b"), item("c")) == [True, False, False]


async def test_of_two_equal_ids_in_a_batch_the_second_is_a_repeat(opened: Open) -> None:
    async with opened() as lago:
        assert await post(lago, item("a"), item("b"), item("a")) == RefusedEvents({2: EXISTS})
        assert await stored(lago, item("a"), item("b")) == [False, False]


async def test_an_old_lago_stores_the_other_events_of_a_refused_batch(opened: Open) -> None:
    async with opened(whole_batches=False) as lago:
        await post(lago, item("a"))
        assert await post(lago, item("b"), item("a")) == RefusedEvents({1: EXISTS})
        assert await stored(lago, item("b")) == [True]


async def test_clickhouse_without_deduplication_refuses_no_repeat(opened: Open) -> None:
    async with opened(unique=False) as lago:
        assert await post(lago, item("a")) == await post(lago, item("a")) == Delivered()


async def test_more_than_a_hundred_events_are_refused_without_an_index(opened: Open) -> None:
    async with opened() as lago:
        items = [item(f"t{number}") for number in range(101)]
        assert await post(lago, *items) == SplitBatch()
        assert await stored(lago, items[0]) == [False]


async def test_over_the_limit_every_double_answers_like_the_sandbox() -> None:
    frozen = lago_sandbox(rate_limit=1, clock=lambda: 1_741_219_251.25)
    async with frozen as lago, httpx.AsyncClient(trust_env=False) as http:
        client = LagoClient(http, lago.url, KEY)
        real = [await client.post_batch(body_of([item(name).value])) for name in "ab"]
    double = LimitedLago(SandboxLimit(1), latency_s=lambda: 0.0, away=(-2.0, -1.0))
    fake = [await double.post_batch(body_of([item(name).value])) for name in "ab"]
    assert [verdict_on_batch(one, 1) for one in real] == [verdict_on_batch(one, 1) for one in fake]
    assert isinstance(verdict_on_batch(real[1], 1), RetryLater)
    assert isinstance(await double.get_event("a"), LagoEvent) and await double.get_event("b") is None
