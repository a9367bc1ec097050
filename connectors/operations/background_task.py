"""Runs a background task of the projector until it is cancelled. An error never ends it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import structlog

from schemas.errors import MeterbridgeError
from schemas.reasons import POSTGRES_DENIED, POSTGRES_SCHEMA
from streams.runtime.cancellation import is_own_cancellation

log = structlog.get_logger(__name__)

#: A table, a function or a right is missing.
_REFUSALS: Final = (POSTGRES_SCHEMA, POSTGRES_DENIED)


async def watch(
    once: Callable[[], Awaitable[object]],
    sleep: Callable[[float], Awaitable[None]],
    every_s: float,
    *,
    waits: str,
    failed: str,
    on_failure: Callable[[], None],
) -> NoReturn:
    """Call `once` until cancelled, with a pause of `every_s` seconds.

    Args:
        waits: the log line of an expected error; one line for each cause, until `once` succeeds again.
        failed: the log line of an unexpected error, with its traceback.
        on_failure: counts an unexpected error, and each time that Postgres refuses: that does not pass by itself.
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
                on_failure()
        except (Exception, asyncio.CancelledError) as error:  # a bug of ours must not end the projector
            if is_own_cancellation(error):
                raise
            on_failure()
            log.exception(failed, error=type(error).__name__)
        await sleep(every_s)
