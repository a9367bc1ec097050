"""Lists records without a row, with their places and reasons. The projector stores these and continues."""

from typing import NamedTuple

from connectors.postgres.pool import Database

_ROWS = """
SELECT topic, partition, "offset", reason, problem, to_char(noticed_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM unprojected_records ORDER BY noticed_at DESC, topic, partition, "offset" LIMIT $1
"""


class KeptAside(NamedTuple):
    """Records without a row.

    Fields:
        total: their number.
        rows: topic, partition, offset, reason, problem, and the time of storing (ISO 8601 UTC); the latest first.
    """

    total: int
    rows: list[tuple[str, int, int, str, str, str]]


async def unprojected_records(url: str, limit: int) -> KeptAside:
    """Return the latest `limit` records. Raises: Unavailable: Postgres does not answer, or has no tables."""
    database = Database(url, size=1)
    try:
        async with database.connection() as connection:
            total = await connection.fetchval("SELECT count(*) FROM unprojected_records")
            return KeptAside(total, [tuple(row) for row in await connection.fetch(_ROWS, limit)])
    finally:
        database.terminate()
