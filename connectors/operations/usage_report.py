"""Reads the sums of analytics from Postgres, by day or by another dimension, for all calls or for the calls of one
user.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from connectors.postgres.pool import Database
from schemas.bounded_name import bounded_name
from schemas.money import plain

DAY: Final = "day"
#: The dimensions for all calls, and for the calls of one user.
GROUPS: Final = (DAY, "user", "org", "provider", "model", "team", "key", "tag")
GROUPS_OF_USER: Final = (DAY, "provider", "model")

_SUMS: Final = (
    *("calls", "successes", "failures", "own_key_calls", "tokens_input", "tokens_output", "total_tokens"),
    *("cached_tokens", "reasoning_tokens", "provider_cost_usd", "own_key_cost_usd", "billed_usd"),
    *("timed_calls", "timed_ms", "answered_ms", "answered_tokens"),
)
_SUMMED: Final = ", ".join(f"sum({name}) AS {name}" for name in _SUMS)
_BY_DAY = f"""
SELECT day::text AS value, {_SUMMED} FROM usage_by_dimension
WHERE dimension = 'all' AND day BETWEEN $1 AND $2 GROUP BY day ORDER BY day
"""  # noqa: S608  # our own words
#: The first groups are found with two columns of the index. Then only the rows of these groups are read, by the index
#: of each group's value.
_BY_VALUE = f"""
WITH first AS (
    SELECT value, sum(billed_usd) AS billed, sum(calls) AS called, count(*) OVER () AS groups
    FROM usage_by_dimension WHERE dimension = $3 AND day BETWEEN $1 AND $2
    GROUP BY value ORDER BY 2 DESC, 3 DESC, value LIMIT $4
)
SELECT first.value, sums.*, first.groups FROM first CROSS JOIN LATERAL (
    SELECT {_SUMMED} FROM usage_by_dimension u WHERE u.dimension = $3 AND u.value = first.value AND u.day BETWEEN $1 AND $2
) AS sums
ORDER BY first.billed DESC, first.called DESC, first.value
"""  # noqa: S608
_OF_USER = """
SELECT {value}::text AS value, {sums}, count(*) OVER () AS groups FROM usage_summary_days
WHERE user_id = $3 AND day BETWEEN $1 AND $2 GROUP BY {value} ORDER BY {order} LIMIT $4
"""
_LATENCIES = """
SELECT {value}::text AS value, counts FROM usage_latencies
WHERE dimension = $1 AND value = ANY ($2) AND day BETWEEN $3 AND $4
"""
_REFRESHED = "SELECT refreshed_at FROM usage_summary_refreshed"
_BUCKETS_PER_DOUBLING: Final = 4
_P95: Final = 0.95
#: Big-endian integers, as `int8send` writes them.
_COUNTS: Final = ">i8"


@dataclass(frozen=True, slots=True)
class UsageSums:
    """The sums of one group of calls.

    Fields:
        value: the day, or the id of the user, org ...; `""` = calls without such an id.
        p95_latency_ms: None = not known for this group.
    """

    value: str
    sums: Mapping[str, Any]
    p95_latency_ms: int | None = None

    def as_object(self, group_by: str) -> dict[str, Any]:
        """Return the group as an object for JSON: dollars and rates as decimal text. A rate is null if its divisor is
        0.
        """
        sums, cost, billed = self.sums, self.sums["provider_cost_usd"], self.sums["billed_usd"]
        whole = {name: int(sums[name]) for name in _SUMS[:9]}
        judged = sums["successes"] + sums["failures"]
        return {
            group_by: self.value,
            **whole,
            "provider_cost_usd": plain(cost),
            "own_key_cost_usd": plain(sums["own_key_cost_usd"]),
            "billed_usd": plain(billed),
            "margin_usd": plain(billed - cost),
            "success_rate": _ratio(sums["successes"], judged, 6),
            "avg_latency_ms": _ratio(sums["timed_ms"], sums["timed_calls"], 1),
            "p95_latency_ms": self.p95_latency_ms,
            "tokens_per_second": _ratio(1000 * sums["answered_tokens"], sums["answered_ms"], 3),
            "own_key_share": _ratio(sums["own_key_calls"], sums["calls"], 6),
        }


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The groups, ordered by billed amount (the highest first) or by day.

    Fields:
        groups: number of all groups. It is larger than the length of `rows` if the limit was reached.
        refreshed_at: the sums contain all calls that the log had at this time; None = they were never made.
    """

    rows: Sequence[UsageSums]
    groups: int
    refreshed_at: datetime | None


async def usage_of_all(database: Database, first: date, last: date, group_by: str, limit: int) -> UsageReport:
    """Read the usage of the UTC days `[first, last]`, both included. Raises: Unavailable."""
    by_day = group_by == DAY
    async with database.connection() as connection:
        if by_day:
            found = await connection.fetch(_BY_DAY, first, last)
        else:
            found = await connection.fetch(_BY_VALUE, first, last, group_by, limit)
        values = [""] if by_day else [row["value"] for row in found]
        statement = _LATENCIES.format(value="day" if by_day else "value")
        latencies = await connection.fetch(statement, "all" if by_day else group_by, values, first, last)
        refreshed = await connection.fetchval(_REFRESHED)
    p95 = _percentiles(latencies)
    rows = [UsageSums(row["value"], row, p95.get(row["value"])) for row in found]
    return UsageReport(rows, len(found) if by_day or not found else found[0]["groups"], refreshed)


async def usage_of_user(
    database: Database, first: date, last: date, group_by: str, limit: int, user_id: str
) -> UsageReport:
    """Read the usage of one user's calls, as `usage_of_all`; `group_by` is one of `GROUPS_OF_USER`. Raises:
    Unavailable.
    """
    user = bounded_name(user_id)
    order = "day" if group_by == DAY else "sum(billed_usd) DESC, sum(calls) DESC, 1"
    statement = _OF_USER.format(value=group_by, sums=_SUMMED, order=order)
    async with database.connection() as connection:
        found = await connection.fetch(statement, first, last, user, 1000 if group_by == DAY else limit)
        latencies = []
        if group_by == DAY:
            latencies = await connection.fetch(_LATENCIES.format(value="day"), "user", [user], first, last)
        refreshed = await connection.fetchval(_REFRESHED)
    p95 = _percentiles(latencies)
    rows = [UsageSums(row["value"], row, p95.get(row["value"])) for row in found]
    return UsageReport(rows, found[0]["groups"] if found else 0, refreshed)


def percentile_ms(counts: Sequence[int], share: float) -> int | None:
    """Return the latency that this fraction of the calls does not exceed, milliseconds; None = there are no calls.

    Args:
        counts: number of calls by bucket; bucket `n` holds latencies of `(2^((n-1)/4), 2^(n/4)]` ms. The result lies in
            the same bucket as the true latency, so it differs by less than 19 %.
    """
    wanted = share * sum(counts)
    below = 0
    for bucket, count in enumerate(counts):
        if count and below + count >= wanted:
            low = 2 ** ((bucket - 1) / _BUCKETS_PER_DOUBLING) if bucket else 0.0
            high = 2 ** (bucket / _BUCKETS_PER_DOUBLING)
            return round(low + (high - low) * (wanted - below) / count)
        below += count
    return None


def _percentiles(latencies: Iterable[Any]) -> dict[str, int | None]:
    import numpy as np  # imported here because it needs 6 MiB of memory, which an api without analytics requests saves

    counts: dict[str, Any] = {}
    for value, stored in latencies:
        more = np.frombuffer(stored, _COUNTS)
        before = counts.get(value)
        counts[value] = more if before is None else before + more
    return {value: percentile_ms(counted.tolist(), _P95) for value, counted in counts.items()}


def _ratio(part: Decimal, whole: Decimal, places: int) -> str | None:
    return None if not whole else plain(round(Decimal(part) / Decimal(whole), places))
