"""Keeps the sums of analytics up to date, beside a projector. A day whose sums cannot be computed does not delay other
days.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

import structlog

from connectors.operations.background_task import watch
from connectors.postgres.pool import Database
from schemas.errors import MeterbridgeError, Unavailable
from schemas.reasons import POSTGRES_ERROR, POSTGRES_SLOW

#: Period in seconds; the time limit of one day in seconds; the wait after a refresh is at least this multiple of its
#: duration.
EVERY_S, LIMIT_S, REST = 60.0, 900.0, 20.0
#: The longest wait in seconds, after a refresh and after failures.
MOST_REST_S: Final = 3600.0
#: How much longer than the time limit in Postgres this process waits for an answer, seconds.
_GRACE_S: Final = 5.0
_RECENT: Final = """
SELECT EXISTS (SELECT FROM usage_summary_refreshed WHERE refreshed_at > clock_timestamp() - make_interval(secs => $1))
"""
#: The days that changed or failed, the latest first. A failed day waits until its next attempt, even if it changes
#: meanwhile.
_DUE: Final = """
SELECT day FROM (SELECT day FROM usage_days_changed UNION SELECT day FROM usage_days_failed) AS of_log
WHERE NOT EXISTS (SELECT FROM usage_days_failed f WHERE f.day = of_log.day AND f.retry_at > clock_timestamp())
ORDER BY day DESC
"""
_LOCK: Final = "SELECT pg_try_advisory_xact_lock(hashtext('meterbridge refresh_usage_summary'))"
_REFRESH: Final = "SELECT refresh_usage_day($1)"
_FAILED: Final = "SELECT usage_day_failed($1, $2)"
_DONE: Final = "SELECT usage_summary_was_refreshed($1)"
_HOW_MANY_FAILED: Final = "SELECT count(*) FROM usage_days_failed"

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class SummaryRefresh:
    """Refreshes the sums. If several processes run, one of them refreshes at a time.

    Args:
        failed: counts a failure by its reason: a day, Postgres, or a bug.
        show: exports the number of failed days that wait for their next attempt.
        monotonic: returns seconds.
    """

    database: Database
    failed: Callable[[str], None]
    show: Callable[[int], None]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic
    _not_before: float = 0.0
    _failures: int = 0
    _logged: dict[date, str] = field(default_factory=dict)

    async def watch(self) -> None:
        """Run `once` periodically until cancelled. An expected error is logged, and the next attempt follows."""
        await watch(
            self.once,
            self.sleep,
            EVERY_S,
            waits="usage_summary_waits",
        )

    async def once(self) -> bool:
        """Refresh the sums if it is due. It is not due shortly after a refresh, after a long refresh, or after failed
        attempts.

        Raises: Unavailable: the next wait is twice as long as the last one, at most an hour.
        """
        began = self.monotonic()
        if began < self._not_before:
            return False
        try:
            refreshed = await self._refreshed()
        except Exception as error:
            self._failures += 1
            self._not_before = self.monotonic() + min(EVERY_S * 2.0 ** min(self._failures, 10), MOST_REST_S)
            self.failed(error.reason if isinstance(error, MeterbridgeError) else POSTGRES_ERROR)
            raise
        self._failures = 0
        if refreshed:
            now = self.monotonic()
            self._not_before = now + min(REST * (now - began), MOST_REST_S)
        return refreshed

    async def _refreshed(self) -> bool:
        async with self.database.connection() as connection:
            self.show(await connection.fetchval(_HOW_MANY_FAILED))
            if await connection.fetchval(_RECENT, EVERY_S / 2):
                return False
            days = [day for (day,) in await connection.fetch(_DUE)]
        for day in days:
            if not await self._day(day):
                return False
        async with self.database.connection() as connection:
            await connection.execute(_DONE, len(days))
            self.show(await connection.fetchval(_HOW_MANY_FAILED))
        return True

    async def _day(self, day: date) -> bool:
        """Compute the sums of a day in a transaction of its own; False = another process refreshes."""
        try:
            async with self.database.connection() as connection, connection.transaction():
                if not await connection.fetchval(_LOCK):
                    return False
                problem = await self._asked(connection, day)
        except Unavailable as slow:
            if slow.reason != POSTGRES_SLOW:
                raise
            problem = POSTGRES_SLOW
            async with self.database.connection() as connection:
                await connection.execute(_FAILED, day, problem)
        self._tell(day, problem)
        return True

    async def _asked(self, connection: Any, day: date) -> str | None:
        await connection.execute(f"SET LOCAL statement_timeout = '{LIMIT_S:.0f}s'")
        problem: str | None = await connection.fetchval(_REFRESH, day, timeout=LIMIT_S + _GRACE_S)
        return problem

    def _tell(self, day: date, problem: str | None) -> None:
        if problem is None:
            self._logged.pop(day, None)
            return
        self.failed(POSTGRES_SLOW if problem == POSTGRES_SLOW else POSTGRES_ERROR)
        if self._logged.get(day) != problem:
            self._logged[day] = problem
            log.error("usage_day_not_summed", day=str(day), problem=problem, see="usage_days_failed")
