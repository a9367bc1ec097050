"""Wall and CPU seconds of a part of this process, printed for the process that started it.

Standard library only, because a peer's Python may have none of our packages.
"""

import json
import resource
import signal
import sys
import time
from collections.abc import Callable

#: The beginning of the one line of stdout that `bench.contest` reads.
WORD = "measured "
#: The longest run, seconds: a program whose broker is gone must not stay.
_LIMIT_S = 150


def cpu_s() -> float:
    """User and system seconds of all threads of this process, so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Stopwatch:
    """Starts at the first call of `start`; further calls change nothing. Ends a program that takes too long.

    Args:
        cpu: seconds of CPU time so far; by default of this process.
    """

    def __init__(self, cpu: Callable[[], float] = cpu_s) -> None:
        self._begun: tuple[float, float] | None = None
        self._cpu = cpu
        signal.alarm(_LIMIT_S)

    def start(self) -> None:
        """Call this when the first record has arrived."""
        if self._begun is None:
            self._begun = time.perf_counter(), self._cpu()

    def stop(self, count: int) -> None:
        """Print the cost of `count` records."""
        wall, cpu = time.perf_counter(), self._cpu()
        if self._begun is None:
            raise RuntimeError("stopped before it was started")
        begun_wall, begun_cpu = self._begun
        seconds = {"count": count, "wall_s": wall - begun_wall, "cpu_s": cpu - begun_cpu}
        sys.stdout.write(WORD + json.dumps(seconds) + "\n")
        sys.stdout.flush()
