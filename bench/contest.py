"""Runs contestants one after the other, each in its own process, interleaved over the repeats."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.stopwatch import WORD

ROOT = Path(__file__).parents[1]
#: Quix Streams needs an older Kafka client than ours, so it has an environment of its own.
PEERS_PYTHON = str(ROOT / "bench" / ".venv" / "bin" / "python")
_LIMIT_S = 170


@dataclass(frozen=True, slots=True)
class Measured:
    """The cost of one unit of work, microseconds."""

    wall: float
    cpu: float


def measured(line: str) -> Measured:
    """What a program has printed with its `Stopwatch`. Raises: ValueError: it is another line."""
    printed = json.loads(line.removeprefix(WORD))
    return Measured(printed["wall_s"] * 1e6 / printed["count"], printed["cpu_s"] * 1e6 / printed["count"])


def environment() -> dict[str, str]:
    """The environment of a program that runs in another folder than this one."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


def run(module: str, *arguments: str | int, python: str = sys.executable) -> Measured:
    """Run a program to its end, in a temporary folder.

    Raises:
        RuntimeError: it failed or measured nothing; the text has the end of its output.
    """
    with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as folder:
        done = subprocess.run(
            [python, "-m", module, *map(str, arguments)],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    for line in done.stdout.splitlines():
        if line.startswith(WORD):
            return measured(line)
    raise RuntimeError(
        f"{module} measured nothing (exit code {done.returncode}):\n{(done.stdout + done.stderr)[-3000:]}"
    )


def interleaved(contestants: Mapping[str, Callable[[], Measured]], repeats: int) -> dict[str, list[Measured]]:
    """Run every contestant once, then every one again: a disturbance of the machine then affects all of them.

    The first round does not count, because a broker that has just started compiles its own code on the same cores.
    """
    found: dict[str, list[Measured]] = {name: [] for name in contestants}
    for number in range(repeats + 1):
        for name, contestant in contestants.items():
            measured = contestant()
            if number:
                found[name].append(measured)
    return found
