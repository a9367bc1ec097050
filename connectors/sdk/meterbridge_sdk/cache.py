"""Keeps answers for some seconds, so that a busy service sends one request for many calls."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar
from weakref import WeakValueDictionary

#: How long an answer is kept, in seconds, and the maximum number of kept answers.
KEPT_S: Final = 10.0
MAX_ENTRIES: Final = 10_000

V = TypeVar("V")


class TimedCache(Generic[V]):
    """Answers by org. `None` and errors are not kept.

    Args:
        clock: seconds, never backwards.
        kept_s: how long an answer is kept, seconds.
        max_entries: further answers replace the oldest ones.
    """

    def __init__(self, clock: Callable[[], float], *, kept_s: float = KEPT_S, max_entries: int = MAX_ENTRIES) -> None:
        self._clock = clock
        self._kept_s = kept_s
        self._max_entries = max_entries
        self._answers: dict[str, tuple[float, V]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._generation = 0

    async def get(self, org_id: str, ask: Callable[[], Awaitable[V | None]]) -> V | None:
        """Return the kept answer, or what `ask` returns; for one org `ask` runs once at a time. Raises: what `ask`
        raises.
        """
        async with self._locks.setdefault(org_id, asyncio.Lock()):
            kept = self._answers.get(org_id)
            if kept is not None and self._clock() < kept[0]:
                return kept[1]
            self._answers.pop(org_id, None)
            generation = self._generation
            answer = await ask()
            if answer is not None and generation == self._generation:
                self._answers[org_id] = (self._clock() + self._kept_s, answer)
                while len(self._answers) > self._max_entries:
                    self._answers.pop(next(iter(self._answers)))
            return answer

    def forget(self, org_id: str) -> None:
        """Drop an answer that has changed. An answer that is still arriving may be older than the change, so it is not
        kept either.
        """
        self._generation += 1
        self._answers.pop(org_id, None)
