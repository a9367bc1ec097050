"""Deleting a customer, changing a subscription, links, and webhook endpoints."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.sandbox import Clock, Lago, codes, lago_sandbox


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=Clock()) as running:
        yield running


async def test_a_deleted_customer_is_gone_with_its_subscriptions_and_its_id_is_free(lago: Lago) -> None:
    await lago.sell()
    first = (await lago.get("/customers/org_1")).json()["customer"]
    assert (await lago.http.delete("/api/v1/customers/org_1")).status_code == 200
    for ask in (lago.get("/customers/org_1"), lago.http.delete("/api/v1/customers/org_1")):
        answer = await ask
        assert (answer.status_code, answer.json()["code"]) == (404, "customer_not_found")
    assert (await lago.get("/subscriptions")).json()["subscriptions"] == []
    await lago.subscribe()
    second = (await lago.get("/customers/org_1")).json()["customer"]
    assert (second["lago_id"] != first["lago_id"], second["slug"]) == (True, "LAG-002")


async def test_deleting_an_id_with_a_dot_deletes_another_customer(lago: Lago) -> None:
    """Therefore our client refuses it."""
    for external_id in ("a", "a.b"):
        await lago.save("/customers", "customer", external_id=external_id)
    assert (await lago.http.delete("/api/v1/customers/a.b")).json()["customer"]["external_id"] == "a"
    assert [c["external_id"] for c in (await lago.get("/customers")).json()["customers"]] == ["a.b"]


async def test_a_subscription_changes_its_name_and_end_and_nothing_else(lago: Lago) -> None:
    await lago.sell()
    path = "/api/v1/subscriptions/sub_1"
    changed = await lago.http.put(
        path, json={"subscription": {"name": "n", "ending_at": "2025-12-31", "plan_code": "x"}}
    )
    shown = changed.json()["subscription"]
    assert (shown["name"], shown["ending_at"], shown["plan_code"]) == ("n", "2025-12-31T00:00:00Z", "llm")
    assert codes(await lago.http.put(path, json={"subscription": {"ending_at": "2020-01-01"}})) == {
        "ending_at": ["invalid_date"]
    }
    refused = await lago.http.put(path, json={"subscription": {"plan_overrides": {}}})
    assert (refused.status_code, refused.json()["code"]) == (403, "feature_unavailable")
    assert (await lago.http.put(path[:-1] + "2", json={"subscription": {"name": "n"}})).status_code == 404


async def test_a_changed_end_ends_a_subscription_and_a_removed_end_does_not() -> None:
    clock = Clock()
    async with lago_sandbox(clock=clock) as lago:
        await lago.sell()
        for ending_at in ("2025-03-08", None, "2025-03-09"):
            await lago.http.put("/api/v1/subscriptions/sub_1", json={"subscription": {"ending_at": ending_at}})
        clock.now += 2 * 86_400
        assert (await lago.get("/subscriptions/sub_1")).status_code == 200
        clock.now += 86_400
        assert (await lago.get("/subscriptions/sub_1")).status_code == 404


async def test_portal_and_checkout_are_links_and_the_second_needs_a_payment_provider(lago: Lago) -> None:
    await lago.save("/customers", "customer", external_id="org_1")
    assert "/customer-portal/" in (await lago.get("/customers/org_1/portal_url")).json()["customer"]["portal_url"]
    path = "/api/v1/customers/org_1/checkout_url"
    assert codes(await lago.http.post(path)) == {"base": ["no_linked_payment_provider"]}
    await lago.save("/customers", "customer", external_id="org_1", billing_configuration={"payment_provider": "stripe"})
    shown = (await lago.http.post(path)).json()["customer"]
    assert (shown["payment_provider"], shown["external_customer_id"]) == ("stripe", "org_1")
    assert shown["checkout_url"].startswith("http")


async def test_a_webhook_address_is_registered_once_and_at_most_ten_are(lago: Lago) -> None:
    async def register(number: int, **fields: str) -> object:
        url = f"https://hooks.example/{number}"
        answer = await lago.save("/webhook_endpoints", "webhook_endpoint", webhook_url=url, **fields)
        return answer.json()["webhook_endpoint"] if answer.status_code == 200 else codes(answer)

    first = await register(9, signature_algo="hmac")
    assert isinstance(first, dict)
    assert (first["signature_algo"], first["event_types"]) == ("hmac", None)
    assert await register(9) == {"webhook_url": ["value_already_exist"]}
    for number in range(9):
        await register(number)
    assert await register(10) == {"base": ["exceeded_limit"]}
    listed = (await lago.get("/webhook_endpoints")).json()["webhook_endpoints"]
    assert [one["webhook_url"][-1] for one in listed] == list("0123456789")
    assert codes(await lago.save("/webhook_endpoints", "webhook_endpoint", webhook_url="no address"))["webhook_url"]


async def test_a_restart_keeps_endpoints_and_changes(tmp_path: Path) -> None:
    clock, journal = Clock(), tmp_path / "journal"

    async def everything(lago: Lago) -> list[object]:
        paths = ("/customers", "/subscriptions?status[]=active&status[]=terminated", "/webhook_endpoints", "/invoices")
        return [(await lago.http.get(f"/api/v1{path}", headers={"Host": "lago"})).json() for path in paths]

    async with lago_sandbox(clock=clock, journal=journal) as lago:
        await lago.sell()
        await lago.subscribe("sub_2", "org_2")
        await lago.http.put("/api/v1/subscriptions/sub_2", json={"subscription": {"name": "named"}})
        await lago.save("/webhook_endpoints", "webhook_endpoint", webhook_url="https://hooks.example")
        clock.now += 60
        await lago.http.delete("/api/v1/customers/org_1")
        clock.now += 40 * 86_400
        before = await everything(lago)
    async with lago_sandbox(clock=clock, journal=journal) as lago:
        assert await everything(lago) == before
