"""Servers started by the tests die with the process that started them, however it dies.

The guard is a process that reads a pipe of which we hold the only writing end: the kernel closes it
even on SIGKILL, and at the end of the pipe the guard kills what is left and removes its folder.
(PR_SET_PDEATHSIG follows the starting *thread*, which for a restart from an executor is the wrong one.)
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path


def adopt(pid: int, signal: int, folder: Path) -> None:
    """Send `signal` to `pid` and remove `folder` when this process has ended."""
    _tell({"pid": pid, "signal": signal, "folder": str(folder)})


def release(pid: int) -> None:
    """Forget `pid`: it has ended and was waited for, so another process may get its number."""
    _tell({"pid": pid, "signal": 0, "folder": ""})


def _tell(order: dict[str, object]) -> None:
    # Of two guards that threads started at once, one would never hear of a release, and kill who has the number later.
    with _telling:
        pipe = _guard().stdin
        assert pipe is not None
        pipe.write(json.dumps(order).encode() + b"\n")
        pipe.flush()


_telling = threading.Lock()


@cache
def _guard() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _watch() -> None:
    wards: dict[int, tuple[int, str]] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if order["signal"]:
            wards[order["pid"]] = (order["signal"], order["folder"])
        else:
            wards.pop(order["pid"], None)
    for pid, (signal, folder) in wards.items():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _watch()
