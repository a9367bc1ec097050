"""The wall clock of the roles, the processes and the commands. The rules in `streams.core` get the time as an argument."""

import time


def now_us() -> int:
    """Return the current time, microseconds since 1970 UTC."""
    return time.time_ns() // 1000
