"""Contestants run one after the other, each in a process of its own, interleaved over the repeats."""

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
#: Quix Streams wants an older client of Kafka than ours and lives in an environment of its own.
PEERS_PYTHON = str(ROOT / "bench" / ".venv" / "bin" / "python")
_LIMIT_S = 170


@dataclass(frozen=True, slots=True)
class Measured:
    """What one unit of work took, in microseconds."""

    wall: float
    cpu: float


def environment() -> dict[str, str]:
    """For a program that runs in another folder than this."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


def run(module: str, *arguments: str | int, python: str = sys.executable) -> Measured:
    """Run a program to its end, in a folder of its own that is then removed.

    Raises:
        RuntimeError: it failed or measured nothing; with its last words.
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
            told = json.loads(line.removeprefix(WORD))
            return Measured(told["wall_s"] * 1e6 / told["count"], told["cpu_s"] * 1e6 / told["count"])
    raise RuntimeError(
        f"{module} measured nothing (exit code {done.returncode}):\n{(done.stdout + done.stderr)[-3000:]}"
    )


def interleaved(contestants: Mapping[str, Callable[[], Measured]], repeats: int) -> dict[str, list[Measured]]:
    """Everybody once, then everybody again: what disturbs the machine for a while disturbs all of them.

    A first round counts for nobody: a broker that has just started compiles its own code on the same cores.
    """
    found: dict[str, list[Measured]] = {name: [] for name in contestants}
    for number in range(repeats + 1):
        for name, contestant in contestants.items():
            measured = contestant()
            if number:
                found[name].append(measured)
    return found
