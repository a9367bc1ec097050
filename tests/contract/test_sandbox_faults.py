"""Faults apply to requests as often and for as long as configured, and count how often they did."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from connectors.lago_sandbox.injection import Injection
from tests.support.eventually import within
from tests.support.sandbox import Clock, Lago, event, lago_sandbox


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def lago(clock: Clock) -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=clock) as running:
        yield running


async def accepted(lago: Lago) -> int:
    return int((await lago.stats())["totals"]["events"])


async def fired(lago: Lago) -> list[int]:
    return [rule["fired"] for rule in (await lago.http.get("/__faults")).json()["rules"]]


async def test_a_status_is_answered_with_its_headers_and_nothing_is_stored(lago: Lago) -> None:
    await lago.fault(kind="status", status=429, headers={"X-RateLimit-Reset": "3"}, count=2)
    for _ in range(2):
        answer = await lago.post(event())
        assert (answer.status_code, answer.headers["X-RateLimit-Reset"]) == (429, "3")
    assert await accepted(lago) == 0
    assert (await lago.post(event())).status_code == 200
    assert await fired(lago) == [2]


async def test_a_status_may_have_any_body(lago: Lago) -> None:
    details = {"0": "expression_evaluation_failed: Variable: b not found"}
    body = {"status": 422, "code": "validation_errors", "error_details": details}
    await lago.fault(kind="status", status=422, body=body)
    assert (await lago.post(event())).json() == body


async def test_a_drop_closes_the_connection_before_anything_is_stored(lago: Lago) -> None:
    await lago.fault(kind="drop", count=1)
    with pytest.raises(httpx.RemoteProtocolError):
        await lago.post(event())
    assert await accepted(lago) == 0


async def test_a_drop_after_accept_stores_first(lago: Lago) -> None:
    await lago.fault(kind="drop_after_accept", count=1)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await lago.post(event())
    assert await accepted(lago) == 1
    assert (await lago.post(event())).status_code == 422


async def test_a_timeout_after_accept_stores_and_then_does_not_answer(lago: Lago) -> None:
    await lago.fault(kind="timeout_after_accept", seconds=60, count=1)
    with pytest.raises(httpx.ReadTimeout):
        await lago.http.post("/api/v1/events", json={"event": event()}, timeout=0.2)
    async with within(5):
        while await accepted(lago) != 1:
            await asyncio.sleep(0.01)


async def test_after_the_timeout_the_connection_is_closed_without_an_answer(lago: Lago) -> None:
    await lago.fault(kind="timeout_after_accept", seconds=0.05, count=1)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await lago.post(event())


async def test_a_refusal_is_lost_too_if_the_connection_is_dropped(lago: Lago) -> None:
    await lago.post(event())
    await lago.fault(kind="drop_after_accept", count=1)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await lago.post(event())
    assert await accepted(lago) == 1


async def test_a_slow_answer_is_late_and_right(lago: Lago) -> None:
    await lago.fault(kind="slow", seconds=0.15)
    began = time.monotonic()
    assert (await lago.post(event())).status_code == 200
    assert time.monotonic() - began >= 0.15


@pytest.mark.parametrize("stored", [False, True])
async def test_a_garbage_200_is_no_json_and_its_events_are_stored_only_if_configured(lago: Lago, stored: bool) -> None:
    await lago.fault(kind="garbage_200", stored=stored)
    answer = await lago.post(event())
    assert answer.status_code == 200
    with pytest.raises(ValueError, match="Expecting value"):
        answer.json()
    assert await accepted(lago) == stored


async def test_a_poisoned_event_fails_every_batch_that_contains_it_and_no_other(lago: Lago) -> None:
    await lago.fault(kind="poison", transaction_id="bad")
    for _ in range(2):
        assert (await lago.post(event("a"), event("bad"))).status_code == 500
        assert (await lago.post_one(event("bad"))).status_code == 500
    assert (await lago.post(event("a"), event("b"))).status_code == 200
    assert await accepted(lago) == 2


async def test_an_index_poisons_the_first_event_at_this_place(lago: Lago) -> None:
    await lago.fault(kind="poison", index=1)
    assert (await lago.post(event("a"))).status_code == 200
    assert (await lago.post(event("b"), event("bad"), event("c"))).status_code == 500
    assert (await lago.post(event("b"), event("c"))).status_code == 200
    assert (await lago.post(event("bad"))).status_code == 500


async def test_a_rule_ends_after_its_duration(lago: Lago, clock: Clock) -> None:
    await lago.fault(kind="status", status=503, duration_s=10)
    clock.now += 9
    assert (await lago.post(event())).status_code == 503
    clock.now += 1
    assert (await lago.post(event())).status_code == 200
    assert [rule["ended"] for rule in (await lago.http.get("/__faults")).json()["rules"]] == [True]


async def test_random_faults_repeat_with_the_same_seed(lago: Lago) -> None:
    async def run(seed: int) -> list[int]:
        await lago.http.delete("/__faults")
        order = {"seed": seed, "rules": [{"kind": "status", "probability": 0.5}]}
        await lago.http.post("/__faults", json=order)
        return [(await lago.post(event(f"{seed}-{n}"))).status_code == 500 for n in range(30)]

    first, other = await run(1), await run(2)
    assert await run(1) == first != other
    assert 5 < sum(first) < 25


async def test_the_first_matching_rule_fires_and_the_next_one_when_it_is_used_up(lago: Lago) -> None:
    await lago.fault(kind="status", status=503, count=1)
    await lago.fault(kind="status", status=429, count=1)
    assert [(await lago.post(event())).status_code for _ in range(3)] == [503, 429, 200]
    assert await fired(lago) == [1, 1]


async def test_a_rule_applies_to_posted_events_unless_it_names_another_path_and_method(lago: Lago) -> None:
    await lago.fault(kind="status", status=503)
    assert (await lago.get("/events")).status_code == 200
    assert (await lago.http.get("/health")).status_code == 200
    await lago.http.delete("/__faults")
    await lago.fault(kind="status", status=503, path="/health", method="GET")
    await lago.fault(kind="status", status=502, path="/api/v1/customers", method="*")
    assert (await lago.http.get("/health")).status_code == 503
    assert (await lago.save("/customers", "customer", external_id="o")).status_code == 502
    assert (await lago.post(event())).status_code == 200


async def test_deleted_rules_no_longer_fire(lago: Lago) -> None:
    await lago.fault(kind="drop")
    await lago.http.delete("/__faults")
    assert (await lago.post(event())).status_code == 200
    assert await fired(lago) == []


@pytest.mark.parametrize("rule", [{"kind": "explode"}, {"kind": "drop", "probabilty": 1}, {}])
async def test_a_misspelled_rule_is_refused(lago: Lago, rule: dict[str, object]) -> None:
    assert (await lago.http.post("/__faults", json=[rule])).status_code == 422


async def test_every_answer_is_sent_after_the_fixed_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several answers wait at once; what is not of Lago's API is not delayed."""
    waits, all_wait = list[float](), asyncio.Event()

    async def wait(_: Injection, delay_s: float) -> None:
        waits.append(delay_s)
        if len(waits) == 5:
            all_wait.set()
        await all_wait.wait()

    monkeypatch.setattr(Injection, "wait", wait)
    async with lago_sandbox(delay_s=0.5) as lago, within(10):
        await asyncio.gather(*(lago.post(event(f"t{n}")) for n in range(5)))
        await lago.stats()
    assert waits == [0.5] * 5


async def test_a_request_without_an_answer_does_not_delay_the_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its wait ends by itself: it is not cancelled at the end of the server's patience."""
    wait, ended = Injection.wait, list[float]()

    async def noted(injection: Injection, seconds: float) -> None:
        await wait(injection, seconds)
        ended.append(seconds)

    monkeypatch.setattr(Injection, "wait", noted)
    async with lago_sandbox() as lago:
        await lago.fault(kind="slow", seconds=3600)
        waiting = asyncio.create_task(lago.post(event()))
        async with within(5):
            while await fired(lago) != [1]:
                await asyncio.sleep(0.01)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):  # no answer, and no end of the client's patience
        await waiting
    assert ended == [3600]


@pytest.mark.parametrize("kind", ["truncate", "trickle"])
async def test_a_batch_answered_in_pieces_is_stored(lago: Lago, kind: str) -> None:
    """Half of the answer and then the rest, or byte by byte: longer than any client's timeout, but never silent for
    long.
    """
    await lago.fault(kind=kind, seconds=60, count=1)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, TimeoutError)):
        async with asyncio.timeout(0.5):
            await lago.post(event())
    assert await accepted(lago) == 1


async def test_a_lost_event_is_answered_like_a_stored_one_and_not_stored(lago: Lago) -> None:
    stored = await lago.post(event("one"), event("two"))
    await lago.fault(kind="lose", count=2)
    lost = await lago.post(event("three"), event("four"))
    alone = await lago.post_one(event("five"))
    assert (lost.status_code, alone.status_code) == (stored.status_code, 200)
    assert [sent.keys() for sent in lost.json()["events"]] == [kept.keys() for kept in stored.json()["events"]]
    assert alone.json()["event"]["transaction_id"] == "five"
    assert await accepted(lago) == 2
    await lago.fault(kind="lose", count=1)
    assert (await lago.post(event("six", timestamp="yesterday"))).status_code == 422
