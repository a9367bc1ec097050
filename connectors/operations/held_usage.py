"""Lists held usage from the tables, for the management API."""

from typing import Any

from connectors.postgres.pool import Database
from schemas.errors import ConfigurationError
from schemas.money import plain

_UNMAPPED = """
SELECT customer_id, id_kind, reason, sum(calls) AS calls, sum(cost_usd) AS usd, min(first_seen) AS since
FROM held_parts WHERE transaction_id IS NULL AND written_off_at IS NULL
GROUP BY customer_id, id_kind, reason ORDER BY sum(cost_usd) DESC, customer_id LIMIT 1000
"""


class UnmappedUsage:
    """Reads held usage.

    Args:
        database: None = there is no Postgres, and each method raises ConfigurationError.
    """

    def __init__(self, database: Database | None) -> None:
        self._database = database

    async def unmapped(self) -> list[dict[str, Any]]:
        """Return at most 1000 customers with held usage, the highest amount first.

        Raises:
            ConfigurationError: there is no Postgres.
        """
        if self._database is None:
            raise ConfigurationError(
                "DATABASE_URL",
                "DATABASE_URL or POSTGRES_HOST must be set, for example DATABASE_URL=postgresql://localhost/meterbridge",
            )
        async with self._database.connection() as connection:
            rows = await connection.fetch(_UNMAPPED)
        return [
            {
                "litellm_customer_id": row["customer_id"],
                "id_kind": row["id_kind"],
                "reason": row["reason"],
                "calls": int(row["calls"]),
                "usd": plain(row["usd"]),
                "since": row["since"],
            }
            for row in rows
        ]
