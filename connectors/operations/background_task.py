"""Runs the work of a background task of the projector at an interval. `kept_up` runs the task again if it ends."""

from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import structlog

from schemas.errors import MeterbridgeError
from schemas.reasons import POSTGRES_DENIED, POSTGRES_SCHEMA

log = structlog.get_logger(__name__)

#: A table, a function or a right is missing.
_REFUSALS: Final = (POSTGRES_SCHEMA, POSTGRES_DENIED)


async def watch(
    once: Callable[[], Awaitable[object]],
    sleep: Callable[[float], Awaitable[None]],
    every_s: float,
    *,
    waits: str,
    refused: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Call `once` until cancelled, with a pause of `every_s` seconds, also while a neighbour is away.

    Args:
        waits: the log line of an expected error; one line for each cause, until `once` succeeds again.
        refused: counts each time that Postgres refuses: that does not pass by itself.

    Raises:
        Any error that is not a `MeterbridgeError` is a bug: `streams.runtime.kept_up` logs and counts it, and begins the task again.
    """
    logged = ""
    while True:
        try:
            await once()
            logged = ""
        except MeterbridgeError as error:
            if error.reason != logged:
                logged = error.reason
                log.warning(waits, reason=error.reason, detail=error.detail)
            if error.reason in _REFUSALS:
                refused()
        await sleep(every_s)
