"""How Lago reads each field of an event: permitted fields, timestamps, amounts."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.sandbox import NOW, Clock, Lago, codes, event, lago_sandbox


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=Clock()) as running:
        yield running


async def stored(lago: Lago, **fields: Any) -> dict[str, Any]:
    """The event as the batch endpoint returns it, after the single endpoint returned the same."""
    single = await lago.post_one(event("single", **fields))
    assert single.status_code == 200, single.text
    answer = await lago.post(event("batched", **fields))
    assert answer.status_code == 200, answer.text
    echoed: dict[str, Any] = answer.json()["events"][0]
    changing = ("lago_id", "transaction_id")
    assert {k: v for k, v in single.json()["event"].items() if k not in changing} == {
        k: v for k, v in echoed.items() if k not in changing
    }
    return echoed


async def test_only_permitted_fields_are_read_and_all_others_ignored(lago: Lago) -> None:
    echoed = await stored(lago, external_customer_id="org_1", metadata={"a": 1}, lago_id="mine")
    assert set(echoed) == {
        *("lago_id", "transaction_id", "lago_customer_id", "code", "timestamp", "precise_total_amount_cents"),
        *("properties", "lago_subscription_id", "external_subscription_id", "created_at"),
    }
    assert echoed["lago_customer_id"] is None
    assert echoed["lago_subscription_id"] is None
    assert echoed["lago_id"] != "mine"


@pytest.mark.parametrize("properties", [["a"], "text", 1, True, None])
async def test_properties_that_are_no_object_become_an_empty_one(lago: Lago, properties: Any) -> None:
    assert (await stored(lago, properties=properties))["properties"] == {}


async def test_properties_keep_every_digit_of_a_number(lago: Lago) -> None:
    body = b'{"events":[{"transaction_id":"t1","code":"c","properties":{"z":0.12345678901234567890,"a":{"b":[1,null,true]}}}]}'
    answer = await lago.http.post("/api/v1/events/batch", content=body, headers={"Content-Type": "application/json"})
    assert b'"properties":{"a":{"b":[1,null,true]},"z":0.12345678901234567890}' in answer.content


async def test_a_subscription_is_not_required(lago: Lago) -> None:
    assert (await stored(lago, external_subscription_id=None))["external_subscription_id"] is None


async def test_a_transaction_id_may_have_any_characters(lago: Lago) -> None:
    strange = "1Az()[]?#._/|-/../ü漢"
    assert (await lago.post(event(strange))).json()["events"][0]["transaction_id"] == strange


@pytest.mark.parametrize(
    ("sent", "kept"), [(12, "12"), (True, "t"), (1.5, "1.5")], ids=["integer", "boolean", "fraction"]
)
async def test_a_scalar_id_is_stored_as_text(lago: Lago, sent: Any, kept: str) -> None:
    assert (await lago.post(event(transaction_id=sent))).json()["events"][0]["transaction_id"] == kept


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (1741219251, "2025-03-06T00:00:51.000Z"),
        (1741219251.59, "2025-03-06T00:00:51.590Z"),
        ("1741219251.590", "2025-03-06T00:00:51.590Z"),
        ("1741219251.5907", "2025-03-06T00:00:51.590Z"),
        ("1.741219251e9", "2025-03-06T00:00:51.000Z"),
        (" 1741219251 ", "2025-03-06T00:00:51.000Z"),
        ("1_741_219_251", "2025-03-06T00:00:51.000Z"),
        ("1741219251.9999999", "2025-03-06T00:00:51.999Z"),
        ("-1.5", "1969-12-31T23:59:58.500Z"),
    ],
)
async def test_a_timestamp_is_seconds_as_a_number_or_a_text(lago: Lago, sent: Any, kept: str) -> None:
    assert (await stored(lago, timestamp=sent))["timestamp"] == kept


@pytest.mark.parametrize("sent", [1741219251590, "1741219251590"])
async def test_milliseconds_are_silently_accepted_as_the_year_57147_and_never_billed(lago: Lago, sent: Any) -> None:
    await lago.sell()
    assert (await stored(lago, timestamp=sent))["timestamp"].startswith("57147-")
    assert (await lago.stats())["subscriptions"]["sub_1"]["billed_cents"] == "0"
    assert (await lago.usage())["amount_cents"] == 0


@pytest.mark.parametrize("sent", ["2025-03-06T00:00:51Z", "2025-03-06", "", "  ", "abc", "12abc", "1,5", "0x10", True])
async def test_a_malformed_timestamp_is_refused(lago: Lago, sent: Any) -> None:
    assert codes(await lago.post_one(event(timestamp=sent))) == {"timestamp": ["invalid_format"]}
    assert codes(await lago.post(event(timestamp=sent))) == {"0": {"timestamp": ["invalid_format"]}}


@pytest.mark.parametrize("sent", ["NaN", "Infinity", "-Infinity", " NaN "])
async def test_a_timestamp_that_is_not_finite_crashes_lago(lago: Lago, sent: str) -> None:
    for answer in (await lago.post_one(event(timestamp=sent)), await lago.post(event("t2"), event(timestamp=sent))):
        assert answer.status_code == 500
    assert (await lago.stats())["totals"]["events"] == 0


@pytest.mark.parametrize("sent", [None, False, [], {}], ids=["null", "false", "array", "object"])
async def test_without_a_timestamp_the_event_happened_when_it_was_received(lago: Lago, sent: Any) -> None:
    """Arrays and objects are no permitted scalars: they are dropped before any check."""
    assert (await stored(lago, timestamp=sent))["timestamp"] == "2025-03-06T00:00:51.000Z"
    absent = event("absent")
    del absent["timestamp"]
    assert (await lago.post(absent)).json()["events"][0]["timestamp"] == "2025-03-06T00:00:51.000Z"


async def test_clickhouse_truncates_timestamps_to_milliseconds_and_postgres_to_microseconds() -> None:
    for store, since in (("postgres", "2025-03-06T00:00:51.590700Z"), ("clickhouse", "2025-03-06T00:00:51.590000Z")):
        async with lago_sandbox(store=store) as lago:
            await lago.post(event(timestamp=f"{NOW:.0f}.5907"))
            found = await lago.get("/events", timestamp_from=since, timestamp_to=since)
            assert found.json()["meta"]["total_count"] == 1, store


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("1.25", "1.25"),
        ("150", "150.0"),
        ("0", "0.0"),
        ("-3.50", "-3.5"),
        ("0.000000000000001", "0.000000000000001"),
        ("0.0000000000000004", "0.0"),
        ("0.0000000000000005", "0.000000000000001"),
        ("1e-5", "0.00001"),
        ("1E-7", "0.0000001"),
        (".5", "0.5"),
        (12, "12.0"),
        (1.25, "1.25"),
        (None, None),
    ],
)
async def test_an_amount_is_cents_with_up_to_15_decimals(lago: Lago, sent: Any, kept: str | None) -> None:
    assert (await stored(lago, precise_total_amount_cents=sent))["precise_total_amount_cents"] == kept


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("abc", "0.0"), ("1,234.56", "1.0"), ("12abc", "12.0"), ("", None), ("  ", None), (True, "1.0"), ([1], None)],
)
async def test_a_malformed_amount_is_coerced_and_never_refused(lago: Lago, sent: Any, kept: str | None) -> None:
    assert (await stored(lago, precise_total_amount_cents=sent))["precise_total_amount_cents"] == kept


@pytest.mark.parametrize(
    "poison",
    [
        {"transaction_id": "a\0b"},
        {"code": "\0"},
        {"external_subscription_id": "s\0"},
        {"properties": {"model": "gpt\0"}},
        {"properties": {"\0": 1}},
        {"precise_total_amount_cents": "1e30"},
        {"precise_total_amount_cents": "1e70"},
        {"timestamp": "1741219251590000"},
    ],
    ids=["id", "code", "subscription", "property", "key", "amount", "absurd amount", "microseconds"],
)
async def test_a_value_that_no_column_can_store_crashes_postgres_every_time_and_nothing_is_stored(
    lago: Lago, poison: dict[str, Any]
) -> None:
    for _ in range(2):
        assert (await lago.post(event("good"), event("bad") | poison)).status_code == 500
        assert (await lago.post_one(event("bad") | poison)).status_code == 500
    assert (await lago.stats())["totals"]["events"] == 0


async def test_a_backslash_before_u0000_is_no_nul_byte(lago: Lago) -> None:
    assert (await lago.post(event(properties={"text": r"\u0000"}))).status_code == 200
