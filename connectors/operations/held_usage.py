"""Lists customers whose usage waits for a mapping, from the tables, for the management API."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from connectors.operations.present_reason import HeldAsCounted, present_reasons
from connectors.postgres.pool import Database
from schemas.errors import ConfigurationError
from schemas.money import ZERO, add, plain
from schemas.wire import ORG
from streams.core.mapping.held_reasons import INACTIVE, NO_MAPPING, NOT_KEPT, WRONG_KIND
from streams.runtime import clock

#: The most customers that are listed.
_MOST: Final = 1000
#: The reasons that a mapping removes.
_WAITS_FOR_A_MAPPING: Final = frozenset({NO_MAPPING, INACTIVE, WRONG_KIND, NOT_KEPT})
_WAITING: Final = f"transaction_id IS NULL AND written_off_at IS NULL AND id_kind <> '{ORG}'"
#: Of customers that were never mapped. An org that would pay is known only if there was a mapping.
_NEVER_MAPPED = f"""
SELECT customer_id, id_kind, sum(calls) AS calls, sum(cost_usd) AS usd, min(first_seen) AS since
FROM held_parts h WHERE {_WAITING} AND COALESCE(org_id, '') = ''
    AND NOT EXISTS (SELECT FROM customer_records c WHERE c.litellm_customer_id = h.customer_id)
GROUP BY customer_id, id_kind ORDER BY sum(cost_usd) DESC, customer_id LIMIT {_MOST}
"""  # noqa: S608  # our own words
#: Of customers that have no mapping for calls of this kind now, but had one, and usage older than the kept versions of its
#: customer. The earlier versions say why it waits. The parts of an hour are judged by the dearest of them.
_NOT_MAPPED_NOW = f"""
SELECT w.*, (SELECT max(ended_at) FROM llm_usage_log u WHERE u.part = w.part AND u.part <> '') AS ended_at
FROM (
    SELECT customer_id, id_kind, COALESCE(org_id, '') AS org_id, reason, sum(calls) AS calls, sum(cost_usd) AS usd,
           min(first_seen) AS since, (array_agg(part ORDER BY cost_usd DESC))[1] AS part
    FROM held_parts h JOIN customer_records c ON c.litellm_customer_id = h.customer_id
    WHERE {_WAITING} AND (reason = '{NOT_KEPT}' OR NOT EXISTS (
        SELECT FROM customer_mappings m
        WHERE m.litellm_customer_id = h.customer_id AND m.is_active AND COALESCE(m.id_kind, h.id_kind) = h.id_kind
    ))
    GROUP BY customer_id, id_kind, COALESCE(org_id, ''), reason, date_trunc('hour', first_seen)
) AS w
"""  # noqa: S608


@dataclass(slots=True)
class _Unmapped:
    customer: str
    id_kind: str
    reason: str
    calls: int = 0
    usd: Decimal = ZERO
    since: datetime | None = None

    def count(self, row: Any) -> None:
        self.calls += int(row["calls"])
        self.usd = add(self.usd, row["usd"])
        self.since = row["since"] if self.since is None else min(self.since, row["since"])


class UnmappedUsage:
    """Reads held usage.

    Args:
        database: None = there is no Postgres, and each method raises ConfigurationError.
        now_us: a clock, microseconds since 1970 UTC.
    """

    def __init__(self, database: Database | None, now_us: Callable[[], int] = clock.now_us) -> None:
        self._database = database
        self._now_us = now_us

    async def unmapped(self) -> list[dict[str, Any]]:
        """Return at most 1000 customers whose usage waits for a mapping, with the present reason, the highest amount
        first.

        Raises:
            ConfigurationError: there is no Postgres.
        """
        if self._database is None:
            raise ConfigurationError(
                "DATABASE_URL",
                "DATABASE_URL or POSTGRES_HOST must be set, for example DATABASE_URL=postgresql://localhost/meterbridge",
            )
        async with self._database.connection() as connection:
            never = [(row, NO_MAPPING) for row in await connection.fetch(_NEVER_MAPPED)]
            rows = await connection.fetch(_NOT_MAPPED_NOW)
            parts = [_part(row) for row in rows]
            reasons = await present_reasons(connection, parts, "", self._now_us())
        found: dict[tuple[str, str, str], _Unmapped] = {}
        for row, reason in [*never, *zip(rows, reasons, strict=True)]:
            if reason in _WAITS_FOR_A_MAPPING:
                key = (row["customer_id"], row["id_kind"], reason)
                found.setdefault(key, _Unmapped(*key)).count(row)
        dearest = sorted(found.values(), key=lambda one: (-one.usd, one.customer))[:_MOST]
        return [
            {
                "litellm_customer_id": one.customer,
                "id_kind": one.id_kind,
                "reason": one.reason,
                "calls": one.calls,
                "usd": plain(one.usd),
                "since": one.since,
            }
            for one in dearest
        ]


def _part(row: Any) -> HeldAsCounted:
    """Return held usage. If its calls were pruned, the time at which it was counted stands for their end."""
    ended_at = row["ended_at"] or row["since"]
    return HeldAsCounted(row["customer_id"], row["id_kind"], row["org_id"], row["reason"], ended_at)
