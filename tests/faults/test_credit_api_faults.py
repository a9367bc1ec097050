"""Prepaid credits while the api is killed: every confirmed movement exists exactly once, however often the client
repeats its request.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from connectors.credits.idempotency_keys import key_of_parts
from tests.faults.procs import Process
from tests.faults.stage_process import stage_process
from tests.support.credits import account, balanced, give
from tests.support.database import rows
from tests.support.eventually import PATIENCE, soon
from tests.support.http_client import http_client
from tests.support.ports import free_port
from tests.support.stage import Stage
from tests.support.stripe_events import SECRET, body_of, event, session, signed
from tests.support.stripe_server import stripe_server

pytestmark = pytest.mark.faults

_MASTER_KEY = "sk-master"
_KILLS = 8
#: From a start to the first answers.
_AT_WORK_S = 30.0
_USERS = ("ada", "bob", "cyd")
_URLS = {"success_url": "https://shop.example/ok", "cancel_url": "https://shop.example/no"}
#: Every debit differs, so that two that were mixed up would show.
_STEP = Decimal("0.000001")


def api_process(stage: Stage, database: str, stripe: str, port: int, folder: Path) -> Process:
    """Start `meterbridge serve --only api` as a process."""
    environ = {
        "DATABASE_URL": database,
        "LITELLM_MASTER_KEY": _MASTER_KEY,
        "LAGO_API_URL": f"http://127.0.0.1:{free_port()}",
        "LAGO_API_KEY": "a-key",
        "STRIPE_API_KEY": "sk_test_1",
        "STRIPE_API_URL": stripe,
        "STRIPE_WEBHOOK_SECRET": SECRET,
        "API_PORT": str(port),
    }
    return stage_process("api", "serve --only api", stage, folder, "ready", **environ)


class Client:
    """Repeats a request unchanged until it is answered; `repeats` counts the repetitions."""

    def __init__(self, port: int) -> None:
        limits = httpx.Limits(max_keepalive_connections=0)
        self._http = http_client(
            base_url=f"http://127.0.0.1:{port}", timeout=10 * PATIENCE, trust_env=False, limits=limits
        )
        self.repeats = 0

    async def ask(self, path: str, accepted: tuple[int, ...] = (200,), **request: Any) -> tuple[int, dict[str, Any]]:
        """Status and JSON of the first answer with an accepted status."""
        deadline = time.monotonic() + 120 * PATIENCE
        request["headers"] = {"Authorization": f"Bearer {_MASTER_KEY}"} | request.get("headers", {})
        while True:
            assert time.monotonic() < deadline, f"{path} is not answered"
            try:
                answer = await self._http.post(path, **request)
            except httpx.TransportError:
                self.repeats += 1
                await asyncio.sleep(0.05)
                continue
            if answer.status_code in accepted:
                return answer.status_code, answer.json()
            assert answer.status_code == 503, answer.text
            self.repeats += 1
            await asyncio.sleep(0.1)

    async def close(self) -> None:
        await self._http.aclose()


class Confirmed:
    """The confirmed results, by idempotency key, call id, or payment."""

    def __init__(self, client: Client, sessions: dict[str, dict[str, Any]]) -> None:
        self._client = client
        self._sessions = sessions
        self.debits: dict[str, tuple[str, Decimal, str]] = {}
        self.reserved: dict[str, str] = {}
        self.refused = 0
        self.paid: dict[str, str] = {}

    def has(self, debits: int, purchases: int) -> bool:
        """Return whether this number of requests was answered."""
        return len(self.debits) >= debits and len(self.paid) >= purchases

    async def debit(self, name: str, number: int) -> None:
        """Make a debit with its key."""
        user, cost, key = _USERS[number % 3], _STEP * (number + 1), f"{name}-{number}"
        body = {
            "user": user,
            "cost": str(cost),
            "provider": "p",
            "model": "m",
            "prompt_tokens": 1,
            "completion_tokens": 1,
        }
        _, result = await self._client.ask("/api/v1/credits/debit", json=body, headers={"Idempotency-Key": key})
        self.debits[key] = (user, cost, result["transaction_id"])

    async def authorize(self, name: str, number: int) -> None:
        """Make a reservation for a call; dan can pay for 20 of them."""
        call = f"{name}-{number}"
        body = {"user": "dan", "estimate": "0.5", "ttl": 3600, "call_id": call}
        status, result = await self._client.ask("/api/v1/credits/authorize", (200, 402), json=body)
        if status == 200:
            self.reserved[call] = result["reservation_id"]
        self.refused += status == 402

    async def buy(self, name: str, number: int) -> None:
        """Make a purchase with its key, its payment, and Stripe's webhook about it, which Stripe sends twice."""
        user, key = _USERS[number % 3], f"{name}-{number}"
        body = {"user": user, "package_id": 1, **_URLS}
        _, result = await self._client.ask(
            "/api/v1/credits/purchase", (201,), json=body, headers={"Idempotency-Key": key}
        )
        page = self._sessions[result["session_id"]]
        assert page["client_reference_id"] == result["purchase_id"]
        paid = body_of(
            event(
                "checkout.session.completed",
                session(result["purchase_id"], result["session_id"], f"pi_{key}"),
                f"evt_{key}",
            )
        )
        for _ in range(2):
            await self._client.ask("/webhooks/stripe", content=paid, headers=signed(paid))
        self.paid[f"pi_{key}"] = user


async def _again_and_again(stop: asyncio.Event, name: str, once: Callable[[str, int], Awaitable[None]]) -> None:
    number = 0
    while not stop.is_set():
        await once(name, number)
        number += 1
        await asyncio.sleep(0.01)


async def test_a_killed_api_has_done_what_it_answered_exactly_once(
    stage: Stage, database: str, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """Concurrent purchases, reservations and debits; the api is killed eight times at random among them."""
    for user in _USERS:
        await give(database, f"user:{user}", "1000")
    await give(database, "user:dan", "10")
    random, port, stop = Random(13), free_port(), asyncio.Event()
    client = Client(port)
    async with stripe_server() as (stripe, sessions):
        api = api_process(stage, database, stripe, port, tmp_path)
        result = Confirmed(client, sessions)
        works = {"debit": result.debit, "authorize": result.authorize, "buy": result.buy}
        running = [
            asyncio.ensure_future(_again_and_again(stop, f"{kind}{number}", once))
            for kind, once in works.items()
            for number in range(4)
        ]
        try:
            for _ in range(_KILLS):
                api.start()
                await api.up()
                debits, purchases = len(result.debits) + 8, len(result.paid) + 3

                def works(debits: int = debits, purchases: int = purchases) -> bool:
                    return result.has(debits, purchases) or any(one.done() for one in running)

                await soon(works, _AT_WORK_S)
                await asyncio.sleep(random.random() / 3)
                assert not [one for one in running if one.done()], api.tail()
                await api.kill()
            api.start()
            await api.up()
            stop.set()
            await asyncio.gather(*running)
        finally:
            stop.set()
            for one in running:
                one.cancel()
            await client.close()
            await api.kill()
    figures(kills=_KILLS, repeats=client.repeats, debits=len(result.debits), purchases=len(result.paid))
    assert client.repeats > _KILLS and len(result.debits) > 50 and len(result.paid) > 20
    await _exactly_once(database, result)


async def _exactly_once(database: str, confirmed: Confirmed) -> None:
    found = await rows(
        database,
        "SELECT idempotency_key, user_id, -amount, transaction_id::text FROM credit_transactions WHERE transaction_type = 'debit'",
    )
    assert sorted(found) == sorted(
        (key_of_parts("api", f"user:{user}", key), user, cost, transaction)
        for key, (user, cost, transaction) in confirmed.debits.items()
    )
    found = await rows(database, "SELECT call_id, reservation_id::text FROM credit_reservations")
    assert sorted(found) == sorted(confirmed.reserved.items())
    assert len(confirmed.reserved) == 20 and confirmed.refused > 0  # dan has 10 dollars
    found = await rows(
        database,
        "SELECT stripe_transaction_id, user_id, amount FROM credit_transactions WHERE stripe_transaction_id IS NOT NULL",
    )
    assert sorted(found) == sorted((payment, user, Decimal(10)) for payment, user in confirmed.paid.items())
    for user in _USERS:
        spent = sum((cost for by, cost, _ in confirmed.debits.values() if by == user), Decimal(0))
        bought = 10 * sum(by == user for by in confirmed.paid.values())
        assert await account(database, f"user:{user}") == (1000 + bought - spent, Decimal(0))
    await balanced(database)
