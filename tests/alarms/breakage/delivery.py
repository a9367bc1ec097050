"""Faults of the alarms about delivery to Lago (deploy/prometheus/rules/delivery.yml)."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

import httpx

from tests.alarms import damage
from tests.alarms.breakage.scene import Fault, Scene, killed, lago_answers
from tests.faults.world import KEY

_REFUSED: Final = {
    "status": 422,
    "code": "validation_errors",
    "error_details": {"0": {"timestamp": ["invalid_format"]}},
}
_OLD: Final = {"version": "v1.38.2", "message": "Success"}


@contextlib.asynccontextmanager
async def key_of_an_organization_expired(scene: Scene) -> AsyncIterator[None]:
    await scene.lago(scene.eu, kind="status", status=401, path="/api/v1/")
    yield
    await scene.lago(scene.eu)


@contextlib.asynccontextmanager
async def records_are_half_as_old_as_they_may_be(scene: Scene) -> AsyncIterator[None]:
    """Lago is slow, and the topic keeps events for a minute: Kafka deletes old records every five minutes."""
    events = scene.world.topics.events
    await scene.lago(kind="slow", seconds=5)
    await asyncio.to_thread(damage.keep, scene.kafka.bootstrap, events, 40_000)
    yield
    await asyncio.to_thread(damage.keep, scene.kafka.bootstrap, events, 30 * 86_400_000)
    await scene.lago()


@contextlib.asynccontextmanager
async def lago_is_an_older_release(scene: Scene) -> AsyncIterator[None]:
    """Processes that start later see its version at once, and the others within an hour."""
    await scene.lago(kind="status", status=200, body=_OLD, path="/health", method="GET")
    await scene.restarted("sink-0")
    yield
    await scene.lago()
    await scene.restarted("sink-0")


@contextlib.asynccontextmanager
async def usage_is_older_than_its_subscription(scene: Scene) -> AsyncIterator[None]:
    """A subscription starts now, and calls of the last hour arrive: they are billed from its start on."""
    name = f"latecomer-{time.time_ns()}"
    begins = datetime.now(UTC).isoformat()
    subscription = {"external_customer_id": name, "external_id": f"sub-{name}", "plan_code": "ai"}
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=scene.world.url("sandbox"), headers=headers, trust_env=False) as http:
        body = {"subscription": {**subscription, "subscription_at": begins}}
        (await http.post("/api/v1/subscriptions", json=body)).raise_for_status()
    await scene.map(name, name)
    now = time.time()
    calls = [scene.traffic.at(name, now - 3600 + number, spend=0.001) for number in range(300)]
    assert await scene.traffic.send(calls, "/webhook/litellm/usage") == 202
    yield


FAULTS: Final[dict[str, Fault]] = {
    "MeterbridgeLagoDown": killed("sandbox"),
    "MeterbridgeLagoKeyRefused": lago_answers(kind="status", status=401, path="/api/v1/"),
    "MeterbridgeLagoOrganizationDown": killed("sandbox-eu"),
    "MeterbridgeLagoOrganizationKeyRefused": key_of_an_organization_expired,
    "MeterbridgeDeadLetters": lago_answers(kind="status", status=422, body=_REFUSED, count=3),
    "MeterbridgeDeliveryBehind": lago_answers(kind="slow", seconds=5),
    "MeterbridgeRecordsHalfwayToDeletion": records_are_half_as_old_as_they_may_be,
    "MeterbridgeLagoTooOld": lago_is_an_older_release,
    "MeterbridgeUsageBilledLate": usage_is_older_than_its_subscription,
}
