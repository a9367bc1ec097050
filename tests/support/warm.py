"""Processes of the product that start fast: forked from a server that has the product's modules loaded.

A start costs a second of CPU for imports, and the tests start hundreds of processes. A forked process is a
normal process and our own child: it has its own pid, session, environment, files and exit code, and runs the module as
`python -m` would. Two servers take turns, so that two consecutive processes have different random
values of Python, above all another order of sets: a worker and its successor must not have the same.

A test of the start itself, or of the memory of a process, starts its process without this module.
"""

import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any, NoReturn

import certifi

from tests.support.certificates import share_certificates

_ROOT = Path(__file__).parents[2]
_SERVERS = 2
#: What is read when Python, or a library in C, is loaded: a process with a value of its own needs a start of its own.
_READ_AT_START = ("PYTHON", "LD_", "TZ", "LC_", "LANG", "MALLOC_", "OPENBLAS_", "OMP_")
_PR_SET_CHILD_SUBREAPER = 36
_BIGGEST_ORDER = 1 << 17
#: Where a forked process has the files that come with its order.
_PLACES = (1, 2, 0)
_POLL_S = 0.005


class Forked:
    """A child of this process, with what callers use of `subprocess.Popen`."""

    def __init__(self, pid: int, command: Sequence[str]) -> None:
        self.pid = pid
        self.args = command
        self.returncode: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, once the process has ended.

        Raises:
            subprocess.TimeoutExpired: it has not within `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(list(self.args), timeout or 0.0)
            time.sleep(_POLL_S)
        return code

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


#: A process of either kind.
Started = Forked | subprocess.Popen[bytes]


def start(
    command: Sequence[str],
    environ: Mapping[str, str],
    out: int,
    err: int,
    *,
    new_session: bool = False,
    stdin: int = subprocess.DEVNULL,
    cwd: str | None = None,
) -> Started:
    """Start `python -m MODULE WORDS...` with this environment and these files; by default nothing comes from its stdin, and
    it works where this process does."""
    if _needs_its_own_start(command, environ):
        return start_anew(command, environ, out, err, new_session=new_session, stdin=stdin, cwd=cwd)
    files = (out, err) if stdin == subprocess.DEVNULL else (out, err, stdin)
    order = {"words": list(command[2:]), "environ": dict(environ), "cwd": cwd or str(Path.cwd())}
    return Forked(_next_server().fork({**order, "new_session": new_session}, files), command)


def start_anew(
    command: Sequence[str],
    environ: Mapping[str, str],
    out: int,
    err: int,
    *,
    new_session: bool = False,
    stdin: int = subprocess.DEVNULL,
    cwd: str | None = None,
) -> "subprocess.Popen[bytes]":
    """Return `start` with an interpreter of its own."""
    return subprocess.Popen(
        list(command),
        env=dict(environ),
        cwd=cwd,
        stdin=stdin,
        stdout=out,
        stderr=err,
        start_new_session=new_session,
    )


def _needs_its_own_start(command: Sequence[str], environ: Mapping[str, str]) -> bool:
    own = {name: value for name, value in environ.items() if name.startswith(_READ_AT_START)}
    return (
        sys.platform != "linux"
        or list(command[:2]) != [sys.executable, "-m"]
        or any(os.environ.get(name) != value for name, value in own.items())
    )


class _Server:
    """The parent of the forked processes: it has one thread, no open files, and every module of the product loaded."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "LAGO_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.warm", str(theirs.fileno())],
            env={**environ, "OPENBLAS_NUM_THREADS": "1"},
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        self._socket = ours
        self._lock = threading.Lock()

    def fork(self, order: Mapping[str, Any], files: Sequence[int]) -> int:
        """Return the pid of a new child of ours. `files`: its stdout, its stderr, and its stdin if it has one."""
        with self._lock, _adopting:
            # A process that loses its parent now becomes a child of this process.
            _subreaper(is_one=True)
            try:
                socket.send_fds(self._socket, [json.dumps(order).encode()], list(files))
                result = [int(self._socket.recv(64) or b"0") for _ in range(2)]
            finally:
                _subreaper(is_one=False)
        if 0 in result:
            raise RuntimeError("the server of forked processes has ended")
        return max(result)


_adopting = threading.Lock()
_DONE = -1


def _subreaper(*, is_one: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(is_one), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


@cache
def _servers() -> "cycle[_Server]":
    return cycle([_Server() for _ in range(_SERVERS)])


def _next_server() -> _Server:
    with _choosing:
        return next(_servers())


_choosing = threading.Lock()


def _next_order(asked: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return in each forked process, with the command that it has to run. The server itself continues until the last
    request."""
    while True:
        data, files, _, _ = socket.recv_fds(asked, _BIGGEST_ORDER, len(_PLACES))
        if not data:
            sys.exit(0)
        order = json.loads(data)
        middle = os.fork()
        if not middle:
            before = os.getpid()
            if os.fork():
                os._exit(0)
            while os.getppid() == before:  # from here on it is the tests' own child
                time.sleep(_POLL_S / 10)
            if order["new_session"]:
                os.setsid()
            asked.send(b"%d" % os.getpid())
            asked.close()
            return order, files
        os.waitpid(middle, 0)  # with its end its child has become the tests' own
        for file in files:
            os.close(file)
        asked.send(b"%d" % _DONE)


def _become(order: dict[str, Any], files: list[int]) -> None:
    """Do the same as the interpreter does for `python -m`."""
    for wanted, file in zip(_PLACES, files, strict=False):
        os.dup2(file, wanted)
        os.close(file)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environ"])
    sys.path[0] = order["cwd"]
    sys.argv = list(order["words"])
    runpy.run_module(order["words"][0], run_name="__main__", alter_sys=True)


def _load() -> None:
    """Import every module of the product, but for those that are programs; and read the certificates of HTTP clients."""
    for name in ("schemas", "streams", "connectors"):
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, name + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    share_certificates()
    ssl.create_default_context(cafile=certifi.where())
    gc.collect()
    gc.freeze()


def main() -> NoReturn:
    """Serve on the socket that was handed down."""
    _load()
    _become(*_next_order(socket.socket(fileno=int(sys.argv[1]))))
    sys.exit(0)


if __name__ == "__main__":
    main()
