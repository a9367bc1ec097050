"""Records usage of other metrics for orgs over HTTP while processes are killed; each event is repeated until it is
accepted.
"""

import asyncio
import time
from collections.abc import Sequence
from random import Random
from typing import Any

import aiohttp

from tests.faults.calls import Owed

RATE = 10
DUPLICATES = 0.03
CODE = "api_call"
_PATIENCE = aiohttp.ClientTimeout(total=30)


class Recorder:
    """Records at a steady rate; some events a second time, and some whose answer was lost.

    Args:
        url: of the management API.

    Attributes:
        answers_lost: attempts that were not answered, or refused for the moment.
    """

    def __init__(self, url: str, key: str, owed: Owed, orgs: Sequence[str], seed: int) -> None:
        self.answers_lost = 0
        self._url = url
        self._key = key
        self._owed = owed
        self._orgs = orgs
        self._random = Random(f"recorder/{seed}")

    async def run(self, seconds: float, until: asyncio.Event) -> None:
        """Record for this time, and until `until` is set; return when every event is accepted."""
        begun, number = time.monotonic(), 0
        headers = {"Authorization": f"Bearer {self._key}"}
        async with aiohttp.ClientSession(headers=headers, timeout=_PATIENCE) as session, asyncio.TaskGroup() as group:
            while (passed := time.monotonic() - begun) < seconds or not until.is_set():
                while number < passed * RATE and number < seconds * RATE:
                    number += 1
                    group.create_task(self._record(session, number))
                await asyncio.sleep(0.5 / RATE)

    async def _record(self, session: aiohttp.ClientSession, number: int) -> None:
        random = self._random
        org_id, transaction_id = random.choice(self._orgs), f"tx-{number}"
        properties = {"endpoint": f"/v1/{random.randint(0, 9)}", "tokens": str(random.randint(0, 9999))}
        times = 2 if random.random() < DUPLICATES else 1
        # The clock's "now" would turn a repeat into another event: a repeat has its original time.
        body = {
            "event_code": CODE,
            "transaction_id": transaction_id,
            "properties": properties,
            "timestamp": time.time(),
        }
        self._owed.metered[transaction_id] = (org_id, properties)
        for _ in range(times):
            while not await self._accepted(session, org_id, body):
                self.answers_lost += 1
                await asyncio.sleep(random.uniform(0.1, 0.5))

    async def _accepted(self, session: aiohttp.ClientSession, org_id: str, body: dict[str, Any]) -> bool:
        """Make one attempt. Raises: RuntimeError: it is permanently refused."""
        url = f"{self._url}/api/v1/billing/org/organizations/{org_id}/usage/record"
        try:
            async with session.post(url, json=body) as response:
                result = await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return False
        if response.status < 500 and response.status not in (202, 429):
            raise RuntimeError(f"usage/record: {response.status} {result[:300]}")
        return response.status == 202
