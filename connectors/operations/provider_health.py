"""Keeps the table `provider_health` up to date beside a projector. The core's rules judge the last minutes of the usage
log.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from connectors.operations.background_task import watch
from connectors.postgres.pool import Database
from schemas.errors import MeterbridgeError
from streams.core.metering.error_categories import OF_PROVIDER, RATE_LIMIT
from streams.core.metering.provider_health import HEALTHY, STATUSES, SeenCalls, status_after

#: Period in seconds; length of the window in seconds; how long a pair without calls stays in the table, in days.
EVERY_S, WINDOW_S, KEPT_DAYS = 15.0, 600, 7
#: The most pairs that are judged; those with the most calls come first. Clients choose the names, and may invent any
#: number of them.
MOST_PAIRS: Final = 1000
_LOCK: Final = "SELECT pg_try_advisory_xact_lock(hashtext('meterbridge provider health'))"
_WINDOW: Final = """
SELECT
    provider, model, count(*) AS calls, count(*) FILTER (WHERE status = 'failure') AS failures,
    count(*) FILTER (WHERE error_category = $3) AS rate_limited,
    count(*) FILTER (WHERE status = 'failure' AND (last_success IS NULL OR ended_at > last_success)) AS consecutive_failures,
    round(avg(latency_ms) FILTER (WHERE status = 'success'), 3) AS avg_latency_ms,
    round((percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_ms) FILTER (WHERE status = 'success'))::numeric, 3)
        AS p95_latency_ms,
    max(ended_at) AS last_call_at
FROM (
    SELECT bounded_name(provider) AS provider, bounded_name(model) AS model, status, error_category, latency_ms, ended_at,
        max(ended_at) FILTER (WHERE status = 'success') OVER (PARTITION BY provider, model) AS last_success
    FROM llm_usage_log
    WHERE ended_at > now() - make_interval(secs => $1) AND ended_at <= now() + interval '1 minute'
        AND provider <> '' AND decision NOT IN ('metered', 'cache_hit')
        AND (status = 'success' OR (status = 'failure' AND error_category = ANY ($2)))
) AS reported
GROUP BY provider, model ORDER BY count(*) DESC, provider, model LIMIT $4
"""
_BEFORE: Final = "SELECT provider, model, status FROM provider_health"
_SAVE: Final = """
INSERT INTO provider_health AS h (
    provider, model, status, since, calls, avg_latency_ms, p95_latency_ms, success_rate, consecutive_failures,
    rate_limited, last_call_at, updated_at
) VALUES ($1, $2, $3, now(), $4, $5, $6, $7, $8, $9, $10, now())
ON CONFLICT (provider, model) DO UPDATE SET
    status = EXCLUDED.status, since = CASE WHEN h.status = EXCLUDED.status THEN h.since ELSE EXCLUDED.since END,
    calls = EXCLUDED.calls, avg_latency_ms = EXCLUDED.avg_latency_ms, p95_latency_ms = EXCLUDED.p95_latency_ms,
    success_rate = EXCLUDED.success_rate, consecutive_failures = EXCLUDED.consecutive_failures,
    rate_limited = EXCLUDED.rate_limited, last_call_at = COALESCE(EXCLUDED.last_call_at, h.last_call_at),
    updated_at = EXCLUDED.updated_at
"""
_FORGET: Final = """
DELETE FROM provider_health WHERE last_call_at < now() - make_interval(days => $1) OR (provider, model) IN (
    SELECT provider, model FROM provider_health ORDER BY calls DESC, last_call_at DESC, provider, model OFFSET $2
)
"""
_ALL: Final = """
SELECT provider, model, status, since, calls, avg_latency_ms, p95_latency_ms, success_rate, consecutive_failures, rate_limited,
    last_call_at, updated_at
FROM provider_health ORDER BY provider, model LIMIT $1
"""
_NO_CALLS: Final[Mapping[str, Any]] = {}


@dataclass(slots=True)
class ProviderHealth:
    """Keeps the table up to date. If several processes do it at the same time, one of them writes.

    Args:
        show: exports the number of pairs of provider and model by status.
        failed: counts a failure by its reason.
    """

    database: Database
    show: Callable[[Mapping[str, int]], None]
    failed: Callable[[str], None]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def watch(self) -> None:
        """Run `once` periodically until cancelled. An expected error is logged, and the next attempt follows."""
        await watch(
            self.once,
            self.sleep,
            EVERY_S,
            waits="provider_health_waits",
        )

    async def once(self) -> None:
        """Judge the calls of the window, and write the states. Raises: Unavailable."""
        try:
            async with self.database.connection() as connection, connection.transaction():
                if await connection.fetchval(_LOCK):
                    await _judged(connection)
                found = await connection.fetch("SELECT status, count(*) FROM provider_health GROUP BY status")
        except MeterbridgeError as error:
            self.failed(error.reason)
            raise
        self.show({**dict.fromkeys(STATUSES, 0), **dict(found)})


async def _judged(connection: Any) -> None:
    before = {(row["provider"], row["model"]): row["status"] for row in await connection.fetch(_BEFORE)}
    window = await connection.fetch(_WINDOW, WINDOW_S, sorted(OF_PROVIDER), RATE_LIMIT, MOST_PAIRS)
    seen = {(row["provider"], row["model"]): row for row in window}
    states: list[tuple[Any, ...]] = []
    for pair in sorted(before.keys() | seen.keys()):
        row = seen.get(pair, _NO_CALLS)
        calls, failures, in_a_row = (row.get(name, 0) for name in ("calls", "failures", "consecutive_failures"))
        status = status_after(before.get(pair, HEALTHY), SeenCalls(calls, failures, in_a_row))
        rate = round(Decimal(calls - failures) / calls, 6) if calls else None
        latencies = row.get("avg_latency_ms"), row.get("p95_latency_ms")
        last: datetime | None = row.get("last_call_at")
        states.append((*pair, status, calls, *latencies, rate, in_a_row, row.get("rate_limited", 0), last))
    await connection.executemany(_SAVE, states)
    await connection.execute(_FORGET, KEPT_DAYS, MOST_PAIRS)


async def provider_states(database: Database) -> list[Any]:
    """Read the rows of the table, at most `MOST_PAIRS`. Raises: Unavailable."""
    async with database.connection() as connection:
        found: list[Any] = await connection.fetch(_ALL, MOST_PAIRS)
    return found
