"""Usage for a trial: a few mapped customers with continuous calls, and calls with an error."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.faults.calls import CUSTOMERS
from tests.faults.world import TOKEN, World, mapped_late

#: Who calls all the time; and one who does so by another callback alone.
CALLERS = [customer for customer in CUSTOMERS if not mapped_late(customer)][:4]
OTHER = [customer for customer in CUSTOMERS if not mapped_late(customer)][5]
#: A customer whose org is of the further Lago organisation.
ABROAD = "customer-abroad"
_EVERY_S = 0.25


@dataclass(slots=True)
class Traffic:
    """Sends calls. `flows`: whether the usual calls are sent."""

    http: httpx.AsyncClient
    flows: asyncio.Event = field(default_factory=asyncio.Event)
    _ids: "itertools.count[int]" = field(default_factory=itertools.count)

    def call(self, customer: str, **fields: Any) -> dict[str, Any]:
        """A call in the form for own senders."""
        number = next(self._ids)
        call = {"id": f"alarm-{number}", "customer_id": customer, "model": "gpt-4o", "cost_usd": "0.001"}
        return {**call, "tokens_input": 10, "tokens_output": 5, **fields}

    def flat(self, customer: str, **fields: Any) -> dict[str, Any]:
        """A call in the form of LiteLLM's own callback."""
        number = next(self._ids)
        tokens = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        return {"id": f"alarm-{number}", "user": customer, "model": "gpt-4o", **tokens, **fields}

    def at(self, customer: str, ended_s: float, **fields: Any) -> dict[str, Any]:
        """`flat` for a call that ended at this time, seconds since 1970 UTC."""
        return self.flat(customer, startTime=ended_s - 1, endTime=ended_s, **fields)

    async def send(self, body: object, path: str = "/webhooks/litellm", **more: Any) -> int:
        """Post it; returns the status, 0 = no answer."""
        try:
            return (await self.http.post(path, json=body, **more)).status_code
        except httpx.TransportError:
            return 0

    async def flow(self) -> None:
        """Four calls a second, until cancelled."""
        for customer in itertools.cycle([*CALLERS, ABROAD]):
            await self.flows.wait()
            await self.send(self.call(customer))
            await asyncio.sleep(_EVERY_S)


@contextlib.asynccontextmanager
async def traffic(world: World) -> AsyncIterator[Traffic]:
    """The usual calls are sent until the block ends."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=world.url("ingress"), headers=headers, trust_env=False, timeout=20) as http:
        sending = Traffic(http)
        sending.flows.set()
        task = asyncio.ensure_future(sending.flow())
        try:
            yield sending
        finally:
            task.cancel()
            await asyncio.wait({task})
