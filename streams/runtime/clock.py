"""The wall clock of the roles, the processes and the commands. The rules of `streams.core` are given the time instead."""

import time


def now_us() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000
