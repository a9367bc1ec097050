"""Looking up events, and the pages of every list."""

from collections.abc import AsyncIterator

import pytest

from tests.support.sandbox import NOW, Clock, Lago, codes, event, lago_sandbox


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=Clock()) as running:
        yield running


async def ids(lago: Lago, **query: str) -> list[str]:
    answer = await lago.get("/events", **query)
    assert answer.status_code == 200, answer.text
    return [found["transaction_id"] for found in answer.json()["events"]]


async def test_an_event_is_found_by_its_id_as_it_was_stored(lago: Lago) -> None:
    [posted] = (await lago.post(event())).json()["events"]
    assert (await lago.get("/events/t1")).json() == {"event": posted}


async def test_an_unknown_event_is_404(lago: Lago) -> None:
    answer = await lago.get("/events/nope")
    assert (answer.status_code, answer.json()["code"]) == (404, "event_not_found")


async def test_an_id_may_contain_dots_and_an_encoded_slash(lago: Lago) -> None:
    await lago.post(event("a.b/c"))
    assert (await lago.http.get("/api/v1/events/a.b%2Fc")).status_code == 200


async def test_of_an_id_on_two_subscriptions_one_event_is_returned(lago: Lago) -> None:
    await lago.post(event())
    await lago.post(event(external_subscription_id="sub_2"))
    assert (await lago.get("/events/t1")).json()["event"]["external_subscription_id"] == "sub_1"


async def test_events_are_filtered_by_subscription_and_code(lago: Lago) -> None:
    await lago.post(event("a"), event("b", code="tokens"), event("c", external_subscription_id="sub_2"))
    assert await ids(lago, external_subscription_id="sub_1") == ["a", "b"]
    assert await ids(lago, code="llm_cost") == ["a", "c"]
    assert await ids(lago, external_subscription_id="sub_1", code="tokens") == ["b"]
    assert await ids(lago, external_subscription_id="sub_9") == []


async def test_events_are_filtered_by_event_time_with_both_ends_included(lago: Lago) -> None:
    await lago.post(*(event(f"t{n}", timestamp=f"{NOW + n:.3f}") for n in range(4)))
    since, until = "2025-03-06T00:00:52Z", "2025-03-06T00:00:53.000Z"
    assert await ids(lago, timestamp_from=since) == ["t3", "t2", "t1"]
    assert await ids(lago, timestamp_from=since, timestamp_to=until) == ["t2", "t1"]


@pytest.mark.parametrize("name", ["timestamp_from", "timestamp_to"])
@pytest.mark.parametrize("value", ["1741219251", "yesterday"])
async def test_a_filter_that_is_not_iso_8601_is_refused(lago: Lago, name: str, value: str) -> None:
    assert codes(await lago.get("/events", **{name: value})) == {name: ["invalid_date"]}


async def test_postgres_lists_by_event_time_and_clickhouse_by_arrival_newest_first() -> None:
    for store, expected in (("postgres", ["old", "new"]), ("clickhouse", ["new", "old"])):
        clock = Clock()
        async with lago_sandbox(clock=clock, store=store) as lago:
            await lago.post(event("old", timestamp=str(NOW + 9)))
            clock.now += 1
            await lago.post(event("new", timestamp=str(NOW)))
            assert await ids(lago) == expected, store


async def test_a_list_has_pages_of_100_with_links_to_the_next_and_the_previous(lago: Lago) -> None:
    for start in (0, 100, 200):
        await lago.post(*(event(f"t{n:03d}") for n in range(start, min(start + 100, 205))))
    pages = [(await lago.get("/events", page=n)).json() for n in (1, 2, 3)]
    assert [len(page["events"]) for page in pages] == [100, 100, 5]
    assert [page["meta"] for page in pages] == [
        {"current_page": n, "next_page": after, "prev_page": before, "total_pages": 3, "total_count": 205}
        for n, after, before in ((1, 2, None), (2, 3, 1), (3, None, 2))
    ]


async def test_the_size_of_a_page_can_be_chosen(lago: Lago) -> None:
    await lago.post(*map(event, "abcde"))
    answer = (await lago.get("/events", page=2, per_page=2)).json()
    assert [e["transaction_id"] for e in answer["events"]] == ["c", "d"]
    assert answer["meta"]["total_pages"] == 3


@pytest.mark.parametrize("path", ["/events", "/customers", "/subscriptions", "/billable_metrics", "/plans"])
async def test_an_empty_list_is_page_0_of_0(lago: Lago, path: str) -> None:
    assert (await lago.get(path)).json()["meta"] == {
        "current_page": 0,
        "next_page": None,
        "prev_page": None,
        "total_pages": 0,
        "total_count": 0,
    }
