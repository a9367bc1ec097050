"""Answers kept for a while: bounded, with an end, and never an older one than what was written since."""

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """At most `most` answers, each for `kept_s`; that there is nothing is not kept.

    Args:
        clock: seconds, never backwards.
    """

    def __init__(self, clock: Callable[[], float], kept_s: float, most: int) -> None:
        self._clock = clock
        self._kept_s = kept_s
        self._most = most
        self._answers: dict[K, tuple[float, V]] = {}
        self._writes = 0

    async def get(self, key: K, ask: Callable[[], Awaitable[V | None]]) -> V | None:
        """The kept answer, or what `ask` says now."""
        kept = self._answers.get(key)
        if kept is not None and self._clock() < kept[0]:
            return kept[1]
        writes = self._writes
        answer = await ask()
        self._answers.pop(key, None)
        if answer is not None and writes == self._writes:  # asked before a write, it may not know of it
            self._answers[key] = (self._clock() + self._kept_s, answer)
            while len(self._answers) > self._most:
                self._answers.pop(next(iter(self._answers)))
        return answer

    def forget(self, key: K) -> None:
        """It was changed: also an answer that is under way is not kept."""
        self._writes += 1
        self._answers.pop(key, None)
