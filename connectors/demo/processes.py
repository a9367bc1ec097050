"""The demo's processes: the product's own commands, each with a log. They end with the demo."""

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from schemas.errors import Unavailable

#: Longer than the 10 s within which every command stops.
_STOP_S: Final = 11.0
#: Below the ports that the system uses for outgoing connections.
_PORTS: Final = range(20_000, 32_000)
_PR_SET_PDEATHSIG: Final = 1
# Looked up before any fork: a forked child may only make calls that take no lock.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class Processes:
    """Commands of `meterbridge` as child processes.

    Args:
        folder: their working directory, which also has their logs.
        environ: the environment that all of them have.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = dict(environ)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str, **environ: str) -> None:
        """Start `meterbridge <command>`; its output goes to `<name>.log`."""
        with (self._folder / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(  # noqa: S603  # our own interpreter and our own commands
                [sys.executable, "-m", "connectors", *command],
                cwd=self._folder,
                env={**self._environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal reaches only the demo, which then stops them gracefully
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # one system call, and no lock
            )

    @property
    def ids(self) -> dict[str, int]:
        """The process id by name. Each process leads a session of its own."""
        return {name: child.pid for name, child in self._children.items()}

    def check(self) -> None:
        """Check that all of them run. Raises: Unavailable `demo_process_ended`: one has ended."""
        for name, child in self._children.items():
            code = child.poll()
            if code is not None:
                last = (self._folder / f"{name}.log").read_text(errors="replace").strip().rpartition("\n")[2]
                raise Unavailable("demo_process_ended", f"{name} ended with code {code}: {last[:500]}")

    def stop(self) -> None:
        """End all of them: by SIGTERM, and after `_STOP_S` by SIGKILL, with their children. It blocks. A repeat does nothing."""
        children, self._children = list(self._children.values()), {}
        for child in children:
            child.terminate()
        deadline = time.monotonic() + _STOP_S
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def without_proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without proxies, which would take traffic on loopback."""
    return {name: value for name, value in environ.items() if not name.lower().endswith("_proxy")}


def free_ports(count: int) -> list[int]:
    """Consecutive free ports on loopback.

    Raises:
        Unavailable: `no_ports`: none were found in a hundred attempts.
    """
    for _ in range(100):
        first = random.choice(_PORTS[:-count])
        ports = list(range(first, first + count))
        if all(_is_free(port) for port in ports):
            return ports
    raise Unavailable("no_ports", f"no {count} free ports in a row between {_PORTS.start} and {_PORTS.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _die_with_parent() -> None:
    """End the child if the demo is killed. Linux only."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
