"""Faults of the alarms about prepaid credits and users' provider keys (deploy/prometheus/rules/credits.yml)."""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

from tests.alarms.breakage.scene import Fault, Scene
from tests.faults.world import ORGS
from tests.support.database import rows
from tests.support.stripe_events import SECRET as STRIPE_SECRET
from tests.support.stripe_events import event, session, signed

__all__ = ("FAULTS", "STRIPE_SECRET")
#: More than the alarm allows.
_RESERVATIONS: Final = 1100


@contextlib.asynccontextmanager
async def somebody_writes_a_balance(scene: Scene) -> AsyncIterator[None]:
    await scene.grant("user:ada", 10)
    await rows(scene.database, "UPDATE user_credits SET balance = balance + 1 WHERE user_id = 'ada'")
    yield
    await rows(scene.database, "UPDATE user_credits SET balance = balance - 1 WHERE user_id = 'ada'")


@contextlib.asynccontextmanager
async def call_without_a_reservation_is_dear(scene: Scene) -> AsyncIterator[None]:
    await scene.grant("user:bob", 10)
    await scene.map("bob", ORGS[0])
    await scene.traffic.send(scene.traffic.flat("bob", spend=30), "/webhook/litellm/usage")
    yield
    await scene.grant("user:bob", 40)


@contextlib.asynccontextmanager
async def client_names_a_prepaid_user(scene: Scene) -> AsyncIterator[None]:
    """By the end user of its call, which any client may write."""
    await scene.grant("user:eva", 10)
    await scene.map("eva", ORGS[0])
    await asyncio.sleep(2)
    await scene.traffic.send(scene.traffic.call("eva"))
    yield


@contextlib.asynccontextmanager
async def payment_is_for_an_unknown_purchase(scene: Scene) -> AsyncIterator[None]:
    """Stripe reports a payment for a purchase of another database."""
    paid = event(
        "checkout.session.completed", session(str(uuid.uuid4()), f"cs_{time.time_ns()}"), f"evt_{uuid.uuid4()}"
    )
    body = json.dumps(paid).encode()
    async with scene.api() as api:
        (await api.post("/webhooks/stripe", content=body, headers=signed(body))).raise_for_status()
    yield


@contextlib.asynccontextmanager
async def stripes_secret_is_wrong(scene: Scene) -> AsyncIterator[None]:
    async with scene.api() as api:
        for _ in range(12):
            body = json.dumps(event("charge.refunded", {"id": "ch_1"})).encode()
            answer = await api.post("/webhooks/stripe", content=body, headers=signed(body, "whsec_" + "another"))
            assert answer.status_code == 400, answer.text
            await asyncio.sleep(0.5)
    yield


async def _reserve(scene: Scene, account: str, count: int, ttl_s: int) -> None:
    """Reserve credits for calls, with the function that the api uses."""
    reserve = "SELECT authorize_credits($1, 0.01, $2, $3 || number) FROM generate_series(1, $4) AS number"
    await rows(scene.database, reserve, account, ttl_s, f"{uuid.uuid4()}-", count)


@contextlib.asynccontextmanager
async def reserved_calls_do_not_come(scene: Scene) -> AsyncIterator[None]:
    await scene.grant("user:dan", 100)
    await _reserve(scene, "user:dan", _RESERVATIONS, 150)
    yield


@contextlib.asynccontextmanager
async def function_is_missing(scene: Scene) -> AsyncIterator[None]:
    """The database function that ends reservations is missing, as after a restore of an older dump."""
    await scene.grant("user:fay", 10)
    await rows(scene.database, "ALTER FUNCTION expire_credits(text, integer) RENAME TO expired_credits")
    await _reserve(scene, "user:fay", 1, 1)
    yield
    await rows(scene.database, "ALTER FUNCTION expired_credits(text, integer) RENAME TO expire_credits")


@contextlib.asynccontextmanager
async def stored_key_is_changed(scene: Scene) -> AsyncIterator[None]:
    """A byte of an encrypted provider key is changed."""
    key: dict[str, Any] = {"provider": "openai", "api_key": "sk-" + uuid.uuid4().hex, "user_id": "gus"}
    async with scene.api() as api:
        (await api.post("/api/v1/provider-keys", json=key)).raise_for_status()
        flip = "UPDATE user_provider_keys SET encrypted_key = set_byte(encrypted_key, 30, 65) WHERE user_id = 'gus'"
        await rows(scene.database, flip)
        for _ in range(12):
            await api.post("/api/v1/provider-keys/resolve", json={"user_id": "gus", "provider": "openai"})
            await asyncio.sleep(0.5)
    yield
    await rows(scene.database, "DELETE FROM user_provider_keys WHERE user_id = 'gus'")


FAULTS: Final[dict[str, Fault]] = {
    "MeterbridgeCreditsImbalance": somebody_writes_a_balance,
    "MeterbridgeOverdraftGrows": call_without_a_reservation_is_dear,
    "MeterbridgeCallsUndebited": client_names_a_prepaid_user,
    "MeterbridgePaymentWithoutCredits": payment_is_for_an_unknown_purchase,
    "MeterbridgeStripeUnsigned": stripes_secret_is_wrong,
    "MeterbridgeReservationsGrow": reserved_calls_do_not_come,
    "MeterbridgeCreditUpkeepFails": function_is_missing,
    "MeterbridgeProviderKeysUnreadable": stored_key_is_changed,
}
