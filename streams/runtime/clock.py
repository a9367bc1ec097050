"""The wall clock of the roles, the processes and the commands. The rules in `streams.core` get the time as an argument."""

import time
from datetime import UTC, datetime


def now_us() -> int:
    """Return the current time, microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def utc_now() -> datetime:
    """Return the current time, with the offset of UTC."""
    return datetime.now(UTC)
