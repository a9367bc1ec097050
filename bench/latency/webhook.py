"""From webhook to Lago with `WINDOW_SECONDS=0`: one process of each role, and a Lago that answers in 5 ms."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from bench.latency.timing import at_pace, row
from tests.support.running_roles import LINE, TOKEN, RunningRoles, running_roles
from tests.support.stage import Stage

RATE, CUSTOMERS = 200, 20
#: Groups are joined and ledgers opened once the first calls have arrived; a broker that has just been started runs its
#: transactions in a cold JVM.
_WARM_UP = 1000
_LAST_S = 60.0
_PERCENTILE = 99


async def measured(bootstrap: str, prefix: str, folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Post `RATE` calls a second, one in each post; return the row of their times."""
    async with _line(bootstrap, prefix, folder) as roles, aiohttp.ClientSession() as session:
        line = _Line(roles, session)
        await line.sent(range(_WARM_UP))
        await line.arrivals(_WARM_UP)
        numbers = range(_WARM_UP, _WARM_UP + round(RATE * seconds))
        sent = await line.sent(numbers)
        arrived = await line.arrivals(numbers.stop)
        waits = [arrived[number] - begun for number, begun in zip(numbers, sent, strict=True)]
    return [row(waits, _PERCENTILE, per_second=RATE)]


@asynccontextmanager
async def _line(bootstrap: str, prefix: str, folder: Path) -> AsyncIterator[RunningRoles]:
    stage = Stage(bootstrap, prefix, partitions=12)
    for number in range(CUSTOMERS):
        stage.map(f"customer-{number}", f"org-{number}", f"sub-{number}")
    commands = {**LINE, "lago": ("lago-sandbox", "--delay", "0.005")}
    async with running_roles(bootstrap, prefix, folder, commands, WINDOW_SECONDS="0") as roles:
        yield roles


class _Line:
    """Posts calls, and reads when Lago accepted them."""

    def __init__(self, roles: RunningRoles, session: aiohttp.ClientSession) -> None:
        self._roles = roles
        self._session = session

    async def sent(self, numbers: range) -> list[float]:
        """Post the calls of these numbers; return when each post began, seconds since 1970."""
        return await at_pace(lambda place: self._post(numbers[place]), RATE, len(numbers))

    async def _post(self, number: int) -> float:
        moment = time.time()
        # The cost identifies the call at Lago: 1 cent and the call's number in 1e-6 cents.
        call: dict[str, Any] = {"litellm_call_id": f"c{number}", "user": f"customer-{number % CUSTOMERS}"}
        call |= {"model": "gpt-4o", "total_tokens": 5, "spend": f"{0.01 + number * 1e-8:.8f}"}
        call |= {"startTime": moment - 0.1, "endTime": moment}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self._session.post(f"{self._roles.url}/webhook/litellm/usage", json=call, headers=headers) as answer:
            if answer.status != 202:
                raise RuntimeError(f"{answer.status}: {await answer.text()}")
        return moment

    async def arrivals(self, count: int) -> dict[int, float]:
        """Return when each call was accepted, seconds since 1970, once there are `count`. Raises: TimeoutError."""
        async with asyncio.timeout(_LAST_S):
            while (await self._stats())["totals"]["calls"] < count:
                await asyncio.sleep(0.2)
        async with self._session.get(f"{self._roles.lago}/__events") as answer:
            events = [msgspec.json.decode(line) for line in (await answer.read()).splitlines()]
        return {round((float(event["properties"]["cost_usd"]) - 0.01) * 1e8): event["accepted_at"] for event in events}

    async def _stats(self) -> dict[str, Any]:
        async with self._session.get(f"{self._roles.lago}/__stats") as answer:
            stats: dict[str, Any] = await answer.json()
            return stats
