"""What a repeated event does in each store, which copies are billed, and what the statistics show."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.sandbox import NOW, Clock, Lago, codes, event, lago_sandbox

EXISTS = {"0": {"transaction_id": ["value_already_exist"]}}


@pytest.fixture
async def postgres_store() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=Clock()) as running:
        yield running


@pytest.fixture
async def deduplicating() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=Clock(), store="clickhouse", dedup=True) as running:
        yield running


@pytest.fixture
async def keeping_all() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=Clock(), store="clickhouse") as running:
        yield running


async def totals(lago: Lago, subscription: str = "sub_1") -> dict[str, Any]:
    found: dict[str, Any] = (await lago.stats())["subscriptions"][subscription]
    return found


async def test_postgres_refuses_a_repeat_and_keeps_the_first_copy(postgres_store: Lago) -> None:
    lago = postgres_store
    await lago.post(event(precise_total_amount_cents="1"))
    assert codes(await lago.post(event(precise_total_amount_cents="2"))) == EXISTS
    kept = (await lago.get("/events/t1")).json()["event"]
    assert kept["precise_total_amount_cents"] == "1.0"
    assert (await totals(lago))["cents"] == "1"


@pytest.mark.parametrize("change", [{"code": "tokens"}, {"timestamp": str(NOW + 1)}], ids=["code", "timestamp"])
async def test_on_postgres_neither_code_nor_timestamp_is_in_the_key(
    postgres_store: Lago, change: dict[str, Any]
) -> None:
    await postgres_store.post(event())
    assert codes(await postgres_store.post(event() | change)) == EXISTS


async def test_on_postgres_an_id_may_repeat_on_another_subscription(postgres_store: Lago) -> None:
    await postgres_store.post(event())
    assert (await postgres_store.post(event(external_subscription_id="sub_2"))).status_code == 200


async def test_on_postgres_events_without_a_subscription_are_never_deduplicated(postgres_store: Lago) -> None:
    for _ in range(2):
        assert (await postgres_store.post(event(external_subscription_id=None))).status_code == 200
    assert (await totals(postgres_store, ""))["events"] == 2


async def test_clickhouse_accepts_a_repeat_and_bills_it_twice_without_deduplication(keeping_all: Lago) -> None:
    for _ in range(2):
        assert (await keeping_all.post(event())).status_code == 200
    assert await totals(keeping_all) == {
        "events": 2,
        "calls": 4,
        "tokens": 1640,
        "cents": "2.5",
        "billed_cents": "0",
    }


async def test_clickhouse_deduplicates_by_code_subscription_id_and_timestamp_and_the_last_copy_wins(
    deduplicating: Lago,
) -> None:
    lago = deduplicating
    await lago.sell()
    await lago.post(event(precise_total_amount_cents="10"))
    assert (await lago.post(event(precise_total_amount_cents="30"))).status_code == 200
    assert await totals(lago) == {"events": 1, "calls": 2, "tokens": 820, "cents": "30", "billed_cents": "30"}
    assert (await lago.usage())["amount_cents"] == 30


@pytest.mark.parametrize(
    "change",
    [{"code": "tokens"}, {"timestamp": str(NOW + 1)}, {"external_subscription_id": "sub_2"}],
    ids=["code", "timestamp", "subscription"],
)
async def test_on_clickhouse_a_change_of_any_part_of_the_key_is_another_event(
    deduplicating: Lago, change: dict[str, Any]
) -> None:
    await deduplicating.post(event())
    await deduplicating.post(event() | change)
    assert (await deduplicating.stats())["totals"]["events"] == 2


async def test_on_clickhouse_without_a_timestamp_every_retry_is_a_new_event() -> None:
    clock = Clock()
    async with lago_sandbox(clock=clock, store="clickhouse", dedup=True) as lago:
        for _ in range(2):
            await lago.post(event(timestamp=None))
            clock.now += 1
        assert (await totals(lago))["events"] == 2


async def test_a_superseded_copy_is_still_listed(deduplicating: Lago) -> None:
    for cents in ("10", "30"):
        await deduplicating.post(event(precise_total_amount_cents=cents))
    listed = (await deduplicating.get("/events", external_subscription_id="sub_1")).json()
    assert listed["meta"]["total_count"] == 2


async def test_clickhouse_takes_a_nul_byte(keeping_all: Lago) -> None:
    assert (await keeping_all.post(event(properties={"model": "gpt\0"}))).status_code == 200


async def test_deduplication_is_a_setting_of_clickhouse_alone() -> None:
    with pytest.raises(ValueError, match="clickhouse"):
        async with lago_sandbox(store="postgres", dedup=True):
            pass


async def test_statistics_count_requests_batches_and_duplicates(postgres_store: Lago) -> None:
    lago = postgres_store
    await lago.post(event("a"), event("b"))
    await lago.post(event("a"), event("b"), event("c"))
    await lago.post_one(event("a"))
    await lago.post()
    stats = await lago.stats()
    assert (stats["posts"], stats["batches"], stats["duplicates"]) == (4, 3, 3)
    assert stats["totals"]["events"] == 2


async def test_repeats_on_clickhouse_count_as_duplicates(keeping_all: Lago) -> None:
    for _ in range(3):
        await keeping_all.post(event())
    assert (await keeping_all.stats())["duplicates"] == 2


async def test_statistics_add_cents_exactly_and_show_plain_decimals(postgres_store: Lago) -> None:
    lago = postgres_store
    amounts = ["0.000000000000001", "1000000000000000", "0.1", "0.2"]
    await lago.post(*(event(f"t{n}", precise_total_amount_cents=a) for n, a in enumerate(amounts)))
    assert (await totals(lago))["cents"] == "1000000000000000.300000000000001"


async def test_statistics_read_counts_as_text_or_number(postgres_store: Lago) -> None:
    answer = await postgres_store.post(
        event("a", properties={"requests": "3", "total_tokens": 5}),
        event("b", properties={"requests": 4, "total_tokens": "x"}),
        event("c", properties={}),
    )
    assert answer.status_code == 200
    found = await totals(postgres_store)
    assert (found["calls"], found["tokens"]) == (7, 5)


@pytest.mark.parametrize(
    "change",
    [{"code": "x"}, {"timestamp": "5"}, {"precise_total_amount_cents": "2"}, {"properties": {"unit": "821"}}],
    ids=["code", "timestamp", "amount", "properties"],
)
async def test_an_id_sent_with_two_contents_is_one_conflict_although_the_second_is_refused(
    postgres_store: Lago, change: dict[str, Any]
) -> None:
    lago = postgres_store
    await lago.post(event())
    await lago.post(event())
    assert (await lago.stats())["conflicts"] == 0
    await lago.post(event() | change)
    await lago.post(event() | change)
    assert (await lago.stats())["conflicts"] == 1


async def test_a_refused_event_is_remembered_too(postgres_store: Lago) -> None:
    lago = postgres_store
    await lago.fault(kind="status", status=503, count=1)
    assert (await lago.post(event(precise_total_amount_cents="1"))).status_code == 503
    assert (await lago.stats())["unaccepted"] == 1
    assert (await lago.post(event(precise_total_amount_cents="2"))).status_code == 200
    stats = await lago.stats()
    assert (stats["conflicts"], stats["unaccepted"]) == (1, 0)


async def test_the_same_content_in_another_notation_is_no_conflict(postgres_store: Lago) -> None:
    lago = postgres_store
    await lago.post(event(timestamp="5.50", precise_total_amount_cents="1.250", properties={"a": "1", "b": "2"}))
    await lago.post(event(timestamp=5.5, precise_total_amount_cents=1.25, properties={"b": "2", "a": "1"}))
    assert (await lago.stats())["conflicts"] == 0


async def test_reset_forgets_everything(postgres_store: Lago) -> None:
    lago = postgres_store
    await lago.sell()
    await lago.post(event())
    await lago.fault(kind="drop")
    assert (await lago.http.post("/__reset")).status_code == 200
    stats = await lago.stats()
    assert (stats["subscriptions"], stats["posts"], stats["conflicts"]) == ({}, 0, 0)
    assert (await lago.get("/plans")).json()["meta"]["total_count"] == 0
    assert (await lago.post(event())).status_code == 200


async def test_accepted_events_are_listed_as_lines_in_order_of_arrival(postgres_store: Lago) -> None:
    lago = postgres_store
    await lago.post(event("b"), event("a"))
    await lago.post(event("bad", code=""))
    answer = await lago.http.get("/__events")
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert [line.split('"transaction_id":"')[1][0] for line in answer.text.splitlines()] == ["b", "a"]
