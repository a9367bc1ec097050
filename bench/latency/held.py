"""From the 2xx of a mapping until Lago has the usage that waited for it, with windows of a minute."""

import asyncio
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from bench.latency.timing import at_pace, row
from tests.support.deployment import Deployment, deployment, furnish

#: Mappings a second, and in all at the least.
RATE, LEAST = 25, 100
_LAST_S = 60.0
_PERCENTILE = 99


async def measured(bootstrap: str, prefix: str, folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Hold a call of each customer, map `RATE` customers a second; return the row of the times."""
    names = [f"customer-{number}" for number in range(max(LEAST, round(RATE * seconds)))]
    async with deployment(bootstrap, prefix, folder, window_s=60) as here:
        await furnish(here.lago, [f"org_{name}" for name in names])
        end = time.time() - 120
        await here.post([(name, end, Decimal("0.01")) for name in names])
        await _until_held(here, len(names))

        async def mapped(number: int) -> float:
            await here.map(names[number], f"org_{names[number]}")
            return time.time()

        moments = await at_pace(mapped, RATE, len(names))
        async with asyncio.timeout(_LAST_S):
            while (await here.stats())["totals"]["calls"] < len(names):
                await asyncio.sleep(0.1)
        arrived = {event["properties"]["user_id"]: event["accepted_at"] for event in await here.events()}
    waits = [arrived[name] - moment for name, moment in zip(names, moments, strict=True)]
    return [row(waits, _PERCENTILE, per_second=RATE)]


async def _until_held(here: Deployment, calls: int) -> None:
    """Return once the meter has folded the calls. Raises: TimeoutError."""
    async with asyncio.timeout(_LAST_S):
        while True:
            answer = await here.api.get("/webhooks/stats")
            if answer.status_code == 200 and answer.json()["accepted"] >= calls:
                return
            await asyncio.sleep(0.1)
