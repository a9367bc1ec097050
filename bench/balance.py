"""How long it takes from a webhook until `GET /api/v1/credits/balance` shows its call as debited: `python -m bench.balance`.

A broker, a Postgres, a Lago sandbox and every role run as processes of their own, with the settings that ship. The calls of all
customers are debited. Four customers are watched: each sends a call at a time, of the same cost, so that the balance says how many
of them are debited. A time ends when a request shows the balance, so it has up to a pause of the requests too much.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import aiohttp

from tests.faults.calls import CUSTOMERS, Calls
from tests.faults.world import MASTER_KEY, TOKEN, World, mapped_late, running_world
from tests.support.database import migrated_database, rows
from tests.support.postgres import LocalPostgres

#: One process of each role.
_COMMANDS = {
    "sandbox": ("lago-sandbox",),
    "ingress": ("serve", "--only", "webhooks"),
    "api": ("serve", "--only", "api"),
    "meter-0": ("worker", "--only", "meter"),
    "sink-0": ("worker", "--only", "sink"),
    "retry-0": ("worker", "--only", "retry"),
}
#: Reads of balances are not limited, and the customers of the calls pay, although clients choose them.
_SETTINGS = {"API_RATE_LIMIT": "0", "CREDITS_USER_KINDS": "end_user"}
_WATCHED = tuple(name for name in CUSTOMERS if not mapped_late(name) and name.isascii())[:4]
_OTHERS = tuple(name for name in CUSTOMERS if name not in _WATCHED)
_ACCOUNTS = """
WITH made AS (
    INSERT INTO user_credits (user_id, prepaid_since) SELECT id, '-infinity' FROM unnest($1::text[]) AS id RETURNING user_id
)
SELECT count(*) FROM made
"""
_CREDITS = "SELECT count(*) FROM unnest($1::text[]) AS id CROSS JOIN LATERAL add_user_credits(id, 1000000, 'bonus')"
#: Where the time went, seconds: until the meter had the call, from then until the projector debited it.
_STAGES = """
SELECT extract(epoch FROM u.recorded_at - u.ended_at)::float8, extract(epoch FROM t.created_at - u.recorded_at)::float8
FROM llm_usage_log u JOIN credit_transactions t ON t.idempotency_key = 'call:' || encode(u.identity, 'hex')
WHERE u.customer_id = ANY($1::text[]) AND u.ended_at > to_timestamp($2)
"""
_COST = Decimal("0.001")
#: Seconds: between two calls of a watched customer, between two looks at its balance, before the measurement, and after it.
_PROBE_S, _LOOK_S, _WARM_S, _LAST_S = 0.1, 0.03, 8.0, 60.0
_LARGEST = 10
#: The bound, seconds.
_TARGET_S = 1.0


@dataclass
class Watched:
    """One watched customer: when each of its calls was sent, how long it took to be answered, and when the balance had it."""

    name: str
    sent: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)

    def call(self) -> str:
        """The next call, as JSON."""
        end, number = time.time(), len(self.sent)
        return json.dumps(
            {
                "id": f"chatcmpl-{self.name}-{number}",
                "litellm_call_id": f"{self.name}-{number}",
                "status": "success",
                "call_type": "acompletion",
                "model": "gpt-4o",
                "custom_llm_provider": "openai",
                "prompt_tokens": 10,
                "completion_tokens": 10,
                "total_tokens": 20,
                "end_user": self.name,
                "startTime": end - 0.5,
                "endTime": end,
                "response_cost": float(_COST),
            }
        )


class Trial:
    """The load, and what is watched."""

    def __init__(self, world: World, http: aiohttp.ClientSession, rate: int) -> None:
        self._url, self._api, self._http, self._rate = (
            f"{world.url('ingress')}/webhooks/litellm",
            world.url("api"),
            http,
            rate,
        )
        self._calls = Calls(13)
        self.watched = [Watched(name) for name in _WATCHED]
        self.posted = 0

    async def run(self, seconds: float) -> None:
        """Send for so long, and look until everything is seen."""
        stop = asyncio.Event()
        looking = [asyncio.ensure_future(self._look(one)) for one in self.watched]
        sending = [
            asyncio.ensure_future(
                self._steadily(stop, _LARGEST / (self._rate - len(_WATCHED) / _PROBE_S), self._others)
            ),
            *(
                asyncio.ensure_future(self._steadily(stop, _PROBE_S, lambda one=one: self._probe(one)))
                for one in self.watched
            ),
        ]
        await asyncio.sleep(seconds)
        stop.set()
        await asyncio.gather(*sending)
        async with asyncio.timeout(_LAST_S):
            while any(len(one.seen) < len(one.sent) for one in self.watched):
                await asyncio.sleep(_LOOK_S)
        for one in looking:
            one.cancel()

    async def _steadily(self, stop: asyncio.Event, every_s: float, once: Callable[[], Awaitable[None]]) -> None:
        due, running = time.monotonic(), set[asyncio.Future[None]]()
        while not stop.is_set():
            running.add(asyncio.ensure_future(once()))
            due += every_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            running = {one for one in running if not one.done() or one.result()}
        await asyncio.gather(*running)

    async def _others(self) -> None:
        texts: list[str] = []
        while len(texts) < _LARGEST:
            call = self._calls.make(time.time())
            if call.customer in _OTHERS:
                texts.append(call.text)
        await self._post(f"[{','.join(texts)}]", len(texts))

    async def _probe(self, one: Watched) -> None:
        text = one.call()
        began = time.monotonic()
        one.sent.append(began)
        await self._post(text, 1)
        one.answered.append(time.monotonic() - began)

    async def _post(self, body: str, calls: int) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self._http.post(self._url, data=body.encode(), headers=headers) as answer:
            if answer.status != 202:
                raise RuntimeError(f"{answer.status}: {await answer.text()}")
        self.posted += calls

    async def _look(self, one: Watched) -> None:
        first = await self._balance(one.name)
        while True:
            debited = int((first - await self._balance(one.name)) / _COST)
            now = time.monotonic()
            one.seen += [now] * (debited - len(one.seen))
            await asyncio.sleep(_LOOK_S)

    async def _balance(self, user: str) -> Decimal:
        headers = {"Authorization": f"Bearer {MASTER_KEY}"}
        async with self._http.get(
            f"{self._api}/api/v1/credits/balance", params={"user": user}, headers=headers
        ) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {await answer.text()}")
            return Decimal((await answer.json())["balance"])


class Times(NamedTuple):
    """Of the watched calls after the warm-up, seconds: until the balance had them; and of that until they were answered 202, until
    the meter had them, and from then until they were debited. `rate`: calls that were answered 202 a second."""

    shown: list[float]
    answered: list[float]
    metered: list[float]
    debited: list[float]
    rate: float


async def measured(rate: int, seconds: float) -> Times:
    """One run."""
    postgres = LocalPostgres()
    try:
        with tempfile.TemporaryDirectory(prefix="meterbridge-balance-") as folder:
            async with (
                migrated_database(postgres.url) as url,
                running_world(
                    os.environ, Path(folder), common={"DATABASE_URL": url, **_SETTINGS}, commands=_COMMANDS
                ) as world,
                aiohttp.ClientSession() as http,
            ):
                await rows(url, _ACCOUNTS, list(CUSTOMERS))
                await rows(url, _CREDITS, list(CUSTOMERS))
                trial = Trial(world, http, rate)
                began, began_s = time.monotonic(), time.time()
                await trial.run(_WARM_S + seconds)
                shown = [
                    seen - sent
                    for one in trial.watched
                    for sent, seen in zip(one.sent, one.seen, strict=True)
                    if sent > began + _WARM_S
                ]
                stages = await rows(url, _STAGES, list(_WATCHED), began_s + _WARM_S)
                metered, debited = (list(times) for times in zip(*stages, strict=True))
                answered = [took for one in trial.watched for took in one.answered[int(_WARM_S / _PROBE_S) :]]
                return Times(shown, answered, metered, debited, trial.posted / (_WARM_S + seconds))
    finally:
        postgres.stop()


def main() -> None:
    """Measure once, print it, and end with 1 if the bound is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.balance", description=__doc__)
    parser.add_argument("--rate", type=int, default=500, help="calls a second")
    parser.add_argument("--seconds", type=float, default=30.0)
    asked = parser.parse_args()
    times = asyncio.run(measured(asked.rate, asked.seconds))
    reached = _p99(times.shown) < _TARGET_S
    print(f"{len(times.shown)} calls of {times.rate:.0f} a second; from webhook")
    for what, some in (
        ("to balance", times.shown),
        ("to 202", times.answered),
        ("to meter", times.metered),
        ("and from there to debit", times.debited),
    ):
        print(
            f"  {what}: median {median(some) * 1000:.0f} ms, p99 {_p99(some) * 1000:.0f} ms, longest {max(some) * 1000:.0f} ms"
        )
    print(f"p99 to balance < {_TARGET_S:.0f} s: {'reached' if reached else 'MISSED'}")
    sys.exit(not reached)


def _p99(times: list[float]) -> float:
    return quantiles(times, n=100)[98]


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
