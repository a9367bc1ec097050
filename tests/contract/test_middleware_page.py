"""The examples of docs/middleware.md are services that run: what a reader copies bills its orgs."""

import inspect
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import connectors.middleware as module
from tests.support.sandbox import KEY as LAGO_KEY
from tests.support.sandbox import Clock, Lago, event, lago_sandbox
from tests.support.served_asgi import served_asgi
from tests.support.usage_api import KEY, UsageApi, serving, usage_api

PAGE = (Path(__file__).parents[2] / "docs" / "middleware.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def example(number: int) -> dict[str, Any]:
    """The names that an example defines."""
    names: dict[str, Any] = {}
    exec(compile(PROGRAMS[number], f"docs/middleware.md, example {number}", "exec"), names)
    return names


@pytest.fixture
async def api() -> AsyncIterator[UsageApi]:
    async with usage_api() as running:
        yield running


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=Clock()) as running:
        metric = await running.metric("ai_usage")
        charges = [{"billable_metric_id": metric, "charge_model": "standard", "properties": {"amount": "0"}}]
        await running.plan("starter", 1900, charges=charges)
        yield running


async def asked(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.post(f"{url}/v1/chat", headers={"Idempotency-Key": "k"})


async def test_the_aiohttp_example_serves_limits_and_bills(api: UsageApi, lago: Lago) -> None:
    api.limits = {"starter": {"tokens": 10}}
    for subscribed, used, status in ((False, 0, 402), (True, 9, 200), (True, 10, 429)):
        if subscribed:
            await lago.subscribe("sub_1", "org_1", "starter")
            properties = {"unit": "9" if used == 9 else "1"}
            await lago.post(event(f"t{used}", code="ai_usage", properties=properties, precise_total_amount_cents="0"))
        app = example(0)["aiohttp_service"](api.url, KEY, lago.url, LAGO_KEY)
        async with serving(app) as url:
            assert (await asked(url)).status_code == status
    (call,) = api.calls
    assert (call["org_id"], call["tokens"], call["model"], call["endpoint"]) == ("org_1", "150", "gpt-4", "/v1/chat")


async def test_the_starlette_example_bills(api: UsageApi, lago: Lago) -> None:
    app = example(1)["starlette_service"](api.url, KEY, lago.url, LAGO_KEY)
    async with served_asgi(app) as url:
        for _ in range(2):
            assert (await asked(url)).status_code == 200
    (call,) = api.calls
    assert (call["org_id"], call["user_id"], call["tokens"]) == ("org_1", "user_1", "150")


async def test_a_service_cannot_make_an_orgs_second_subscription(api: UsageApi, lago: Lago) -> None:
    """Where Meterbridge does not subscribe the org, nobody does, and no customer is left behind."""
    async with module.org_billing_service(api.url, KEY, lago_url=lago.url, lago_key=LAGO_KEY):
        from connectors.lago import orgs

        with pytest.raises(module.LagoIntegrationError, match="404"):
            await orgs.subscribe_org_to_plan("org_1", "starter", "Acme", "a@acme.io")
        assert (await module.record_api_call("org_1", "tx", "/x")).transaction_id == "tx"
    assert (await lago.get("/subscriptions")).json()["subscriptions"] == []
    assert (await lago.get("/customers")).json()["customers"] == []
    assert list(api.stored) == ["tx"]


def test_there_is_an_example_for_each_framework_and_no_other() -> None:
    assert len(PROGRAMS) == 2


def test_every_name_of_the_page_can_be_imported_with_its_arguments() -> None:
    """The table names what a reader may call."""
    listed = re.findall(r"^\| `(\w+)(?:\(([^)]*)\))?`", PAGE.split("## On aiohttp")[0], re.MULTILINE)
    assert len(listed) == 8
    for name, arguments in listed:
        assert name in module.__all__
        given = [part.strip() for part in arguments.split(",") if part.strip() not in ("", "...", "*")]
        assert set(given) <= set(inspect.signature(getattr(module, name)).parameters)
