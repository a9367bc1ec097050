"""CPU time of this process together with that of a Postgres on the same machine. Linux only."""

import os
from collections.abc import Callable
from pathlib import Path

from bench.stopwatch import cpu_s

_TICKS = os.sysconf("SC_CLK_TCK")
#: Fields of /proc/<pid>/stat behind the name: the parent; user and system time of the process, and of its children that ended.
_PARENT, _TIMES = 1, slice(11, 15)


def with_postgres(postmaster: int) -> Callable[[], float]:
    """Seconds of CPU time of this process and of the server with this process id, so far."""

    def seconds() -> float:
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            if postmaster in (int(stat.parent.name), int(fields[_PARENT])):
                ticks += sum(map(int, fields[_TIMES]))
        return cpu_s() + ticks / _TICKS

    return seconds
