"""What the processes of one session have cost so far, from /proc. Linux only."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
#: Fields of /proc/<pid>/stat behind the name: the session; user and system time of the process without its children.
_SESSION, _TIMES = 3, slice(11, 13)


@dataclass(frozen=True, slots=True)
class ProcessCost:
    """Of one or several processes.

    Fields:
        cpu_s: user and system time, seconds.
        wakeups: how often a thread waited and was woken: voluntary context switches.
        pss_mib: memory, MiB; a page that n processes share counts as 1/n in each of them.
    """

    cpu_s: float
    wakeups: int
    pss_mib: float


def cost_of_session(leader: int) -> ProcessCost:
    """The sum over the processes of a session that run now. A process that has ended no longer counts."""
    costs = [_cost_of(process) for process in _processes_of(leader)]
    return ProcessCost(
        sum(one.cpu_s for one in costs), sum(one.wakeups for one in costs), sum(one.pss_mib for one in costs)
    )


def _processes_of(leader: int) -> Iterator[Path]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int(_stat(process)[_SESSION]) == leader:
                yield process
        except OSError:  # it has ended
            continue


def _cost_of(process: Path) -> ProcessCost:
    ticks = sum(map(int, _stat(process)[_TIMES]))
    wakeups = sum(_number(thread / "status", "voluntary_ctxt_switches:") for thread in (process / "task").iterdir())
    return ProcessCost(ticks / _TICKS, wakeups, _number(process / "smaps_rollup", "Pss:") / 1024)


def _stat(process: Path) -> list[str]:
    return (process / "stat").read_text().rpartition(")")[2].split()


def _number(file: Path, name: str) -> int:
    """The number behind `name` at the beginning of a line. Raises: LookupError: no line begins so."""
    for line in file.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise LookupError(f"{file} has no {name}")
