"""The event loop of our processes: uvloop, with aiokafka adapted to it."""

from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from streams.runtime.aiokafka_repairs import repair_aiokafka

T = TypeVar("T")


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in a new event loop; return its result."""
    repair_aiokafka()
    return uvloop.run(main)
