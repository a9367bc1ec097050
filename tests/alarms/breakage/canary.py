"""Faults of the canary's alarms (deploy/prometheus/rules/canary.yml)."""

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final

import httpx

from tests.alarms.breakage.scene import Fault, Scene, killed, lago_answers
from tests.faults.world import KEY


@contextlib.asynccontextmanager
async def event_of_the_canary_is_stored_twice(scene: Scene) -> AsyncIterator[None]:
    org = "org_meterbridge-canary"
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=scene.world.url("sandbox"), headers=headers, trust_env=False) as http:
        [own] = (await http.get("/api/v1/subscriptions", params={"external_customer_id": org})).json()["subscriptions"]
        query = {"external_subscription_id": own["external_id"]}
        newest = (await http.get("/api/v1/events", params=query)).json()["events"][0]
        twin = {name: newest[name] for name in ("external_subscription_id", "code", "properties")}
        twin["timestamp"] = str(datetime.fromisoformat(newest["timestamp"]).timestamp())
        twin |= {"precise_total_amount_cents": newest["precise_total_amount_cents"], "transaction_id": "twin"}
        (await http.post("/api/v1/events", json={"event": twin})).raise_for_status()
    yield


FAULTS: Final[dict[str, Fault]] = {
    # Lago answers 200 and stores nothing.
    "MeterbridgeCanaryNotBilled": lago_answers(kind="lose"),
    "MeterbridgeCanaryWrong": event_of_the_canary_is_stored_twice,
    "MeterbridgeCanaryGone": killed("canary"),
}
