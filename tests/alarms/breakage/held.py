"""Faults of the alarms about held usage (deploy/prometheus/rules/held.yml)."""

import asyncio
import contextlib
import hmac
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Final

import httpx

from tests.alarms.breakage.scene import Fault, Scene, meanwhile
from tests.faults.world import KEY

#: Signs the webhooks of the stand-in for Lago.
LAGO_SECRET: Final = "trial-webhook-secret"  # of a trial


@contextlib.asynccontextmanager
async def held_money_grows(scene: Scene) -> AsyncIterator[None]:
    for _ in range(5):
        await scene.traffic.send(scene.traffic.call("newcomer", cost_usd="5"))
    yield
    await scene.written_off("newcomer")


@contextlib.asynccontextmanager
async def names_are_invented(scene: Scene) -> AsyncIterator[None]:
    calls = [scene.traffic.call(f"attack-{number}", cost_usd="0.0001") for number in range(150)]
    assert await scene.traffic.send(calls) == 202
    yield
    await scene.command("held", "write-off", "--match", "attack-*", "--comment", "trial", "--yes")


@contextlib.asynccontextmanager
async def usage_of_yesterday_has_no_payer(scene: Scene) -> AsyncIterator[None]:
    call = scene.traffic.at("sleeper", time.time() - 25 * 3600, spend=0.001)
    assert await scene.traffic.send(call, "/webhook/litellm/usage") == 202
    yield
    await scene.written_off("sleeper")


@contextlib.asynccontextmanager
async def more_is_held_than_memory_is_for(scene: Scene) -> AsyncIterator[None]:
    calls = [scene.traffic.call("hoarder", model=f"model-{number}", cost_usd="0.0001") for number in range(150)]
    assert await scene.traffic.send(calls) == 202
    yield
    await scene.written_off("hoarder")


@contextlib.asynccontextmanager
async def subscription_ended_unnoticed(scene: Scene) -> AsyncIterator[None]:
    """Calls go to a subscription that has ended in Lago; its webhook is late, and no other subscription follows."""
    name = f"leaver-{time.time_ns()}"
    headers = {"Authorization": f"Bearer {KEY}"}
    subscription = {"external_customer_id": name, "external_id": f"sub-{name}", "plan_code": "ai"}
    async with httpx.AsyncClient(base_url=scene.world.url("sandbox"), headers=headers, trust_env=False) as lago:
        (await lago.post("/api/v1/subscriptions", json={"subscription": subscription})).raise_for_status()
        await scene.map(name, name)
        async with meanwhile(lambda: scene.traffic.send(scene.traffic.call(name))):
            await asyncio.sleep(12)
            (await lago.delete(f"/api/v1/subscriptions/sub-{name}")).raise_for_status()
            await asyncio.sleep(6)
    await asyncio.sleep(6)  # all of it is at Lago
    body = json.dumps(
        {
            "webhook_type": "subscription.terminated",
            "object_type": "subscription",
            "subscription": {**subscription, "status": "terminated"},
        }
    ).encode()
    signature = b64encode(hmac.digest(LAGO_SECRET.encode(), body, sha256)).decode()
    signed = {"X-Lago-Signature": signature, "X-Lago-Signature-Algorithm": "hmac", "X-Lago-Unique-Key": name}
    async with scene.api() as api:
        (await api.post("/webhooks/lago", content=body, headers=signed)).raise_for_status()
    yield
    async with httpx.AsyncClient(base_url=scene.world.url("sandbox"), headers=headers, trust_env=False) as lago:
        again = {**subscription, "external_id": f"sub-{name}-2"}
        (await lago.post("/api/v1/subscriptions", json={"subscription": again})).raise_for_status()
    await scene.command("lago", "rebill", "--comment", "trial")


@contextlib.asynccontextmanager
async def all_mappings_end(scene: Scene) -> AsyncIterator[None]:
    """Except the mapping of the canary, which is no customer."""
    async with scene.api() as api:
        listed = (await api.get("/customers/mappings", params={"active": "true", "limit": 200})).json()["mappings"]
        own = [row for row in listed if not row["litellm_customer_id"].endswith("-canary")]
        for row in own:
            (await api.delete(f"/customers/{row['litellm_customer_id']}/mapping")).raise_for_status()
        yield
        kept = ("litellm_customer_id", "lago_customer_id", "lago_organization_id", "external_subscription_id")
        for row in own:
            body = {name: row[name] for name in kept if row.get(name)}
            (await api.post("/customers/mapping", json=body)).raise_for_status()


FAULTS: Final[dict[str, Fault]] = {
    "MeterbridgeHeldMoneyGrows": held_money_grows,
    "MeterbridgeHeldTooLong": usage_of_yesterday_has_no_payer,
    "MeterbridgeHeldCustomersJump": names_are_invented,
    "MeterbridgeHeldOverBound": more_is_held_than_memory_is_for,
    "MeterbridgeUsageAfterEnd": subscription_ended_unnoticed,
    "MeterbridgeNoCustomers": all_mappings_end,
}
