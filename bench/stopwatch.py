"""Wall and CPU seconds of a stretch of this process, told to the process that started it.

Standard library only: a peer's Python may have nothing of ours installed.
"""

import json
import resource
import signal
import sys
import time

#: Begins the one line of stdout that is meant for `bench.contest`.
WORD = "measured "
#: A program whose broker went away must not stay behind.
_LIMIT_S = 150


def cpu_s() -> float:
    """User and system seconds of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Stopwatch:
    """Started at the first record, however often it is told so; stopped at the last. Ends a program that takes too long."""

    def __init__(self) -> None:
        self._begun: tuple[float, float] | None = None
        signal.alarm(_LIMIT_S)

    def start(self) -> None:
        """The first record is at hand."""
        if self._begun is None:
            self._begun = time.perf_counter(), cpu_s()

    def stop(self, count: int) -> None:
        """`count` records are done: tell what each of them took."""
        wall, cpu = time.perf_counter(), cpu_s()
        if self._begun is None:
            raise RuntimeError("stopped before it was started")
        begun_wall, begun_cpu = self._begun
        seconds = {"count": count, "wall_s": wall - begun_wall, "cpu_s": cpu - begun_cpu}
        sys.stdout.write(WORD + json.dumps(seconds) + "\n")
        sys.stdout.flush()
