"""Posts sample calls at a steady rate, and records what must be billed, each call once."""

import asyncio
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random
from typing import Final

import httpx

from connectors.demo.sample_calls import SampleCall, sample_call
from connectors.demo.sample_orgs import CUSTOMERS
from schemas.errors import Unavailable
from schemas.ledger import Sum
from schemas.money import add
from streams.core.metering.decisions import BILLED

#: Every 33rd call is delivered a second time, as LiteLLM does after a lost answer: about 3 %.
_REPEAT_EVERY: Final = 33
#: Posts a second, and the number of calls in the largest one, as LiteLLM's batches have.
_POSTS, _MANY = 7, 100
#: How long a failed post is repeated unchanged, and the pause before a repeat, seconds.
_PATIENCE_S, _AGAIN_S = 15.0, 0.3


@dataclass(slots=True)
class ExpectedBill:
    """The sent usage. The bill must be equal to it.

    Fields:
        billable: by customer, calls that are to be billed and their cost, each call once.
        unbilled: number of other calls by the expected decision, each call once.
        delivered: elements answered with 202, repeats included.
        repeats: delivered elements that had been delivered before.
        unsure: elements of posts without an answer. They were sent again, so they may be stored twice.
    """

    billable: dict[str, Sum] = field(default_factory=lambda: {customer: Sum() for customer in CUSTOMERS})
    unbilled: Counter[str] = field(default_factory=Counter)
    delivered: int = 0
    repeats: int = 0
    unsure: int = 0

    def enter(self, call: SampleCall) -> None:
        """Record a call that was accepted for the first time."""
        if call.decision in BILLED:
            known = self.billable[call.customer]
            self.billable[call.customer] = Sum(known.calls + 1, add(known.cost, call.cost))
        else:
            self.unbilled[call.decision] += 1


class Traffic:
    """Posts calls as a LiteLLM proxy does.

    Args:
        http: has the ingress's address and token.
        seed: the same seed makes the same calls, with other ids and moments.
    """

    def __init__(self, http: httpx.AsyncClient, seed: int = 1) -> None:
        self.book = ExpectedBill()
        self._http = http
        self._chance = Random(seed)
        self._pace = Random(seed)
        self._made = 0
        self._lately: deque[SampleCall] = deque(maxlen=200)

    async def send(self, rate: int, seconds: int) -> None:
        """Send `rate * seconds` calls, spread evenly, and some of them twice.

        Raises:
            Unavailable: the ingress keeps refusing.
        """
        began, total = time.monotonic(), rate * seconds
        most = max(5, 2 * rate // _POSTS)
        while self._made < total:
            batch_size = min(self._pace.randint(1, most), total - self._made)
            await asyncio.sleep(began + (self._made + batch_size) / rate - time.monotonic())
            behind = int((time.monotonic() - began) * rate) - self._made
            await self._post(max(batch_size, min(behind, total - self._made, _MANY)))

    async def _post(self, count: int) -> None:
        fresh, repeats = [], []
        for _ in range(count):
            call = sample_call(self._chance.choice(CUSTOMERS), time.time(), self._chance)
            fresh.append(call)
            self._lately.append(call)
            self._made += 1
            if self._made % _REPEAT_EVERY == 0:
                repeats.append(self._chance.choice(self._lately))
        await self._deliver(b"[%b]" % b",".join(call.body for call in (*fresh, *repeats)), count + len(repeats))
        for call in fresh:
            self.book.enter(call)
        self.book.delivered += count + len(repeats)
        self.book.repeats += len(repeats)

    async def _deliver(self, body: bytes, elements: int) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                answer = await self._http.post("/webhook/litellm/usage", content=body)
                said = f"HTTP {answer.status_code}"
            except httpx.RequestError as error:
                answer, said = None, type(error).__name__
            if answer is not None and answer.status_code == httpx.codes.ACCEPTED:
                if "rejected" in answer.json():
                    raise Unavailable("demo_traffic", "the ingress rejects sample calls")
                return
            self.book.unsure += elements
            if time.monotonic() > deadline:
                raise Unavailable("demo_traffic", f"the ingress does not accept calls: {said}")
            await asyncio.sleep(_AGAIN_S)
