"""An event loop whose clock jumps to the next timer: hours of backoff pass in milliseconds, in a fixed order.

A loop that has nothing left to wait for raises, so a deadlock is a failure and not a hang.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: Virtual seconds after which a test is taken to run forever.
LIMIT_S = 7 * 24 * 3600.0


class NeverEnds(AssertionError):
    """Nothing is scheduled any more, or the limit of virtual time is reached."""


class _Instant(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NeverEnds("every task waits for another one")
        self.now += max(timeout, 0.0)
        if self.now > LIMIT_S:
            raise NeverEnds(f"still running after {LIMIT_S} virtual seconds")
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual seconds since the loop was made."""

    def __init__(self) -> None:
        self._instant = _Instant()
        super().__init__(self._instant)

    def time(self) -> float:
        return self._instant.now


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end in virtual time. Raises: NeverEnds."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def virtual_now() -> float:
    """Return the running loop's clock, seconds."""
    return asyncio.get_running_loop().time()
