"""Counts records that a table or a ledger cannot read. The log has a line for the first one, then one line a minute."""

import time
from typing import Final

import structlog

from streams.runtime.role_counts import RoleCounts

log = structlog.get_logger(__name__)

#: Seconds between two lines about one table, so that a program that writes to a topic cannot fill the log.
_EVERY_S: Final = 60.0
#: Number of unreadable records by table, since the start of this process.
COUNTS: Final = RoleCounts()
_said_at: Final[dict[str, float]] = {}


def note(table: str, partition: int, offset: int, error: str = "") -> None:
    """Count one record at this place; `error` names the damage. The content of the record is not logged."""
    so_far = COUNTS.add(table)
    now = time.monotonic()
    if now - _said_at.get(table, float("-inf")) >= _EVERY_S:
        _said_at[table] = now
        place = {"partition": partition, "offset": offset}
        log.error("follower_record_unreadable", table=table, **place, error=error, so_far=so_far)
