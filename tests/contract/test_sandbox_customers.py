"""Customers are created or updated by external id; repeated requests can go wrong in their metadata."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.sandbox import Clock, Lago, codes, lago_sandbox


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def lago(clock: Clock) -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=clock) as running:
        yield running


async def save(lago: Lago, **fields: Any) -> httpx.Response:
    return await lago.save("/customers", "customer", **({"external_id": "org_1"} | fields))


async def saved(lago: Lago, **fields: Any) -> dict[str, Any]:
    answer = await save(lago, **fields)
    assert answer.status_code == 200, answer.text
    customer: dict[str, Any] = answer.json()["customer"]
    return customer


async def test_a_repeat_updates_and_changes_only_the_keys_that_are_present(lago: Lago, clock: Clock) -> None:
    first = await saved(lago, name="Acme", email="a@acme.io", currency="EUR")
    clock.now += 60
    second = await saved(lago, name="Acme Corp")
    assert second["lago_id"] == first["lago_id"]
    assert (second["name"], second["email"], second["currency"]) == ("Acme Corp", "a@acme.io", "EUR")
    assert second["created_at"] < second["updated_at"]
    assert (await lago.get("/customers/org_1")).json()["customer"] == second


@pytest.mark.parametrize("external_id", [None, "", " "])
async def test_an_external_id_is_mandatory(lago: Lago, external_id: str | None) -> None:
    assert codes(await save(lago, external_id=external_id)) == {"external_id": ["value_is_mandatory"]}


async def test_a_currency_is_three_letters(lago: Lago) -> None:
    assert codes(await save(lago, currency="dollars")) == {"currency": ["value_is_invalid"]}


async def test_without_the_root_key_it_is_a_bad_request(lago: Lago) -> None:
    answer = await lago.http.post("/api/v1/customers", json={"external_id": "org_1"})
    assert answer.status_code == 400
    assert answer.json()["error"].endswith("invalid: customer")


async def test_an_unknown_customer_is_404(lago: Lago) -> None:
    for path in ("/customers/nope", "/customers/nope/current_usage", "/customers/nope/subscriptions"):
        answer = await lago.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "customer_not_found"), path


async def test_a_dot_ends_a_customer_id_and_another_customer_answers(lago: Lago) -> None:
    await saved(lago, external_id="a")
    await saved(lago, external_id="a.b")
    assert (await lago.get("/customers/a.b")).json()["customer"]["external_id"] == "a"


async def test_a_path_below_a_customer_id_with_a_dot_is_not_found(lago: Lago) -> None:
    await saved(lago, external_id="a.b")
    answer = await lago.get("/customers/a.b/current_usage", external_subscription_id="s")
    assert (answer.status_code, answer.json()["code"]) == (404, "resource_not_found")


async def test_customers_are_listed_newest_first_and_filtered(lago: Lago) -> None:
    await saved(lago, external_id="org_1", name="Acme", currency="EUR")
    await saved(lago, external_id="org_2", name="Globex", currency="USD")

    async def listed(**query: str) -> list[str]:
        return [c["external_id"] for c in (await lago.get("/customers", **query)).json()["customers"]]

    assert await listed() == ["org_2", "org_1"]
    assert await listed(external_id="org_1") == ["org_1"]
    assert await listed(search_term="glob") == ["org_2"]
    assert await listed(**{"currencies[]": "EUR"}) == ["org_1"]


async def test_metadata_sent_again_without_its_ids_collides_with_itself(lago: Lago) -> None:
    tier = {"key": "tier", "value": "gold"}
    await saved(lago, metadata=[tier])
    assert codes(await save(lago, name="changed", metadata=[tier])) == {"key": ["value_already_exist"]}
    assert (await lago.get("/customers/org_1")).json()["customer"]["name"] is None


async def test_metadata_with_its_ids_is_updated_and_what_is_left_out_is_deleted(lago: Lago) -> None:
    first = await saved(lago, metadata=[{"key": "tier", "value": "gold"}, {"key": "region", "value": "eu"}])
    tier = first["metadata"][0]
    changed = await saved(lago, metadata=[{"id": tier["lago_id"], "key": "tier", "value": "silver"}])
    assert [(m["lago_id"], m["key"], m["value"]) for m in changed["metadata"]] == [(tier["lago_id"], "tier", "silver")]


async def test_metadata_that_is_absent_is_untouched_and_an_empty_list_deletes_it(lago: Lago) -> None:
    await saved(lago, metadata=[{"key": "tier", "value": "gold"}])
    assert len((await saved(lago, name="n"))["metadata"]) == 1
    assert (await saved(lago, metadata=[]))["metadata"] == []


async def test_a_sixth_entry_is_refused(lago: Lago) -> None:
    entries = [{"key": f"k{n}", "value": "v"} for n in range(6)]
    assert codes(await save(lago, metadata=entries)) == {"metadata": ["invalid_count"]}
    assert len((await saved(lago, metadata=entries[:5]))["metadata"]) == 5


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ({"key": "k" * 21, "value": "v"}, {"key": ["value_is_too_long"]}),
        ({"key": "k", "value": "v" * 101}, {"value": ["value_is_too_long"]}),
        ({"key": "", "value": "v"}, {"key": ["value_is_mandatory"]}),
        ({"key": "k"}, {"value": ["value_is_mandatory"]}),
    ],
    ids=["long key", "long value", "no key", "no value"],
)
async def test_keys_have_1_to_20_characters_and_values_1_to_100(
    lago: Lago, entry: dict[str, str], error: dict[str, list[str]]
) -> None:
    assert codes(await save(lago, metadata=[entry])) == error
    assert (await lago.get("/customers/org_1")).status_code == 404
