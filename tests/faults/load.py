"""The sender: posts calls at a steady rate and repeats every post unchanged until it gets 202.

For a refused connection, a 503, a closed connection and a timeout the outcome is unknown, so it posts again. Some calls
are posted twice on purpose, in one body or in a later one.
"""

import asyncio
import heapq
import hmac
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random

import aiohttp

from tests.faults.calls import Call, Calls, Owed

_STEP_S = 0.1
_POSTERS = 24
_LARGEST = 30
#: How long a sender waits for an answer: some leave while the ingress still works on it.
_PATIENCE_S = (3.0, 10.0, 35.0)


@dataclass(slots=True)
class Load:
    """The actions of the sender.

    Fields:
        answers: number of posts by result: an HTTP status or an error's name.
        repeated: calls posted twice on purpose.
        refused: unexpected responses; there must be none.
        waiting: bodies without their 202.
    """

    owed: Owed = field(default_factory=Owed)
    answers: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    refused: list[str] = field(default_factory=list)
    waiting: int = 0


class Sender:
    """Posts to one ingress; half of the bodies are signed, the others carry a token."""

    def __init__(self, url: str, *, token: str, secret: str, seed: int, rate: int, duplicates: float = 0.03) -> None:
        self.load = Load()
        self._url = url
        self._token = token
        self._secret = secret.encode()
        self._rate = rate
        self._duplicates = duplicates
        self._calls = Calls(seed)
        self._random = Random(f"sender/{seed}")
        self._later: list[tuple[float, int, Call]] = []
        self._bodies: asyncio.Queue[bytes] = asyncio.Queue()

    async def run(self, seconds: float, until: asyncio.Event | None = None) -> None:
        """Make calls for this time, and further until `until` is set; return when every call has its 202."""
        async with aiohttp.ClientSession() as session:
            posters = [asyncio.ensure_future(self._post_all(session)) for _ in range(_POSTERS)]
            try:
                await self._make(seconds, until)
                done = asyncio.ensure_future(self._bodies.join())
                await asyncio.wait({done, *posters}, return_when=asyncio.FIRST_COMPLETED)
                done.cancel()
            finally:
                for poster in posters:
                    poster.cancel()
        for poster in posters:
            if poster.done() and not poster.cancelled():
                poster.result()

    async def _make(self, seconds: float, until: asyncio.Event | None) -> None:
        begun, created = time.monotonic(), 0
        while (going_on := not (until is None or until.is_set())) or created < int(seconds * self._rate):
            passed = time.monotonic() - begun
            due = int(min(passed + _STEP_S, max(passed, seconds) if going_on else seconds) * self._rate)
            while created < due:
                size = min(self._random.randint(1, _LARGEST), due - created)
                self._put([self._calls.make(time.time()) for _ in range(size)], passed)
                created += size
            await asyncio.sleep(_STEP_S)
        while self._later:
            self._put([], float("inf"))

    def _put(self, calls: list[Call], passed: float) -> None:
        """Post one body with these calls, and with the calls that are due a second time."""
        random = self._random
        for call in list(calls):
            self.load.owed.note(call)
            if random.random() < self._duplicates:
                self.load.repeated += 1
                if random.random() < 0.5:
                    calls.append(call)
                else:
                    heapq.heappush(self._later, (passed + random.uniform(0.5, 20), self.load.repeated, call))
        while self._later and self._later[0][0] <= passed and len(calls) < 2 * _LARGEST:
            calls.append(heapq.heappop(self._later)[2])
        random.shuffle(calls)
        texts = [call.text for call in calls]
        if len(texts) == 1 and random.random() < 0.5:
            body = texts[0]
        else:
            body = "\n".join(texts) if random.random() < 0.2 else f"[{','.join(texts)}]"
        self._bodies.put_nowait(body.encode())
        self.load.waiting += 1

    async def _post_all(self, session: aiohttp.ClientSession) -> None:
        while True:
            body = await self._bodies.get()
            while not await self._posted(session, body):
                await asyncio.sleep(self._random.uniform(0.1, 0.5))
            self.load.waiting -= 1
            self._bodies.task_done()

    async def _posted(self, session: aiohttp.ClientSession, body: bytes) -> bool:
        """Make one attempt; return whether the body needs no further attempt."""
        load = self.load
        if self._random.random() < 0.5:
            headers = {"X-Webhook-Signature": "sha256=" + hmac.digest(self._secret, body, sha256).hex()}
        else:
            headers = {"Authorization": f"Bearer {self._token}"}
        patience = aiohttp.ClientTimeout(total=self._random.choice(_PATIENCE_S))
        try:
            async with session.post(self._url, data=body, headers=headers, timeout=patience) as response:
                answer = await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            load.answers[type(error).__name__] += 1
            return False
        load.answers[str(response.status)] += 1
        if response.status == 202 and '"rejected"' not in answer:
            return True
        if response.status != 503:
            load.refused.append(f"{response.status}: {answer[:300]}")
        return response.status != 503
