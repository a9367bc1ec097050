"""CPU time and memory of a running process. Linux only."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
#: User and system time in /proc/<pid>/stat behind the name.
_TIMES = slice(11, 13)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process has used so far.

    Fields:
        cpu_s: seconds of all its threads.
        pss: its share of memory now, bytes.
        peak: the most resident memory so far, bytes.
    """

    cpu_s: float
    pss: int
    peak: int


def cost_of(pid: int) -> Cost:
    """Raises: OSError: the process has ended."""
    folder = Path("/proc") / str(pid)
    return Cost(
        cpu_s_of(pid),
        _kilobytes(folder / "smaps_rollup", "Pss:"),
        _kilobytes(folder / "status", "VmHWM:"),
    )


def cpu_s_of(pid: int) -> float:
    """Seconds of CPU time of a process that runs, or has ended and is not waited for yet. Raises: OSError."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[_TIMES])) / _TICKS


def _kilobytes(path: Path, name: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10
