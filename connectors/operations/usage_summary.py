"""Keeps the sums of analytics up to date, beside a projector."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from connectors.operations.background_task import watch
from connectors.postgres.pool import Database

#: Period in seconds; the time limit of one refresh; how much longer than a refresh took the next one waits at least.
EVERY_S, LIMIT_S, REST = 60.0, 900.0, 20.0
_RECENT: Final = """
SELECT EXISTS (SELECT FROM usage_summary_refreshed WHERE refreshed_at > clock_timestamp() - make_interval(secs => $1))
"""


@dataclass(slots=True)
class SummaryRefresh:
    """Of one process. Where several processes project, the one that comes first refreshes for all.

    Args:
        on_failure: counts an unexpected error.
        monotonic: seconds.
    """

    database: Database
    on_failure: Callable[[], None]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic
    _not_before: float = 0.0

    async def watch(self) -> None:
        """Refresh again and again. An error is logged, and the next attempt follows."""
        await watch(
            self.once,
            self.sleep,
            EVERY_S,
            waits="usage_summary_waits",
            failed="usage_summary_failed",
            on_failure=self.on_failure,
        )

    async def once(self) -> bool:
        """Refresh, unless that was done a moment ago, or the last refresh took long. Raises: Unavailable."""
        began = self.monotonic()
        if began < self._not_before:
            return False
        async with self.database.connection() as connection:
            if await connection.fetchval(_RECENT, EVERY_S / 2):
                return False
            async with connection.transaction():
                await connection.execute(f"SET LOCAL statement_timeout = '{LIMIT_S:.0f}s'")
                await connection.execute("SELECT refresh_usage_summary()", timeout=LIMIT_S)
        self._not_before = self.monotonic() + REST * (self.monotonic() - began)
        return True
