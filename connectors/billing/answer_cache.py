"""A bounded cache of responses with a time to live. A response to a request from before a change is not kept."""

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Caches responses by key. None is not cached.

    Args:
        clock: monotonic, seconds.
        kept_s: time to live of a response, seconds.
        most: the largest number of responses; a further one replaces the oldest.
    """

    def __init__(self, clock: Callable[[], float], kept_s: float, most: int) -> None:
        self._clock = clock
        self._kept_s = kept_s
        self._most = most
        self._answers: dict[K, tuple[float, V]] = {}
        self._writes = 0

    async def get(self, key: K, ask: Callable[[], Awaitable[V | None]]) -> V | None:
        """Return the cached response, or the result of `ask`. Raises: the errors of `ask`."""
        kept = self._answers.get(key)
        if kept is not None and self._clock() < kept[0]:
            return kept[1]
        writes = self._writes
        answer = await ask()
        self._answers.pop(key, None)
        if answer is not None and writes == self._writes:  # otherwise the response may be from before the change
            self.keep(key, answer)
        return answer

    def keep(self, key: K, answer: V) -> None:
        """Cache a response that is known to be current."""
        self._answers.pop(key, None)
        self._answers[key] = (self._clock() + self._kept_s, answer)
        while len(self._answers) > self._most:
            self._answers.pop(next(iter(self._answers)))

    def forget(self, key: K) -> None:
        """Drop the response for a changed key. Responses to requests that are running now are not cached either."""
        self._writes += 1
        self._answers.pop(key, None)
