"""The command `meterbridge` for a shell: what is typed there is forked from the servers of tests/support/warm.py.

The shell's own child is a small program (`PROGRAM`) that hands its words, environment, folder and files to this process and
passes signals on. It ends as the command did. When it is killed, the command is killed, too.
"""

import json
import os
import select
import signal
import socket
import sys
import threading
import uuid
from contextlib import suppress
from pathlib import Path

from tests.support import guard, warm

_NOTHING = Path("/nonexistent")
_BIGGEST_ORDER = 1 << 17
#: Without site-packages it starts in a hundredth of a second. What a shell tells its background jobs to ignore stays ignored.
PROGRAM = """#!{python} -IS
import json, os, signal, socket, sys
asked = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
asked.connect("\\0{address}")
for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(one) != signal.SIG_IGN:
        signal.signal(one, lambda number, _: asked.send(b"%d" % number))
order = json.dumps({{"words": sys.argv[1:], "environ": dict(os.environ), "cwd": os.getcwd()}})
socket.send_fds(asked, [order.encode()], [0, 1, 2])
code = int(asked.recv(16) or b"-9")
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


class TypedCommands:
    """Answers the program `meterbridge` in `folder`, which is to be the first of a shell's `PATH`, until it is stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        address = f"meterbridge-{uuid.uuid4().hex}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind("\0" + address)
        self._listener.listen(16)
        program = folder / "meterbridge"
        program.write_text(PROGRAM.format(python=sys.executable, address=address), encoding="utf-8")
        program.chmod(0o755)
        self._running: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def stop(self) -> None:
        """Wait until all commands have ended. The caller has ended their shell before."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for one in self._running:
            one.join()

    def _accept(self) -> None:
        with suppress(OSError):  # stopped
            while True:
                asked, _ = self._listener.accept()
                one = threading.Thread(target=_run, args=(asked,), daemon=True)
                self._running.append(one)
                one.start()


def _run(asked: socket.socket) -> None:
    """Run one command from its start to its end."""
    with asked:
        data, files, _, _ = socket.recv_fds(asked, _BIGGEST_ORDER, 3)
        if not data:  # killed before it could send its request
            return
        order = json.loads(data)
        command = [sys.executable, "-m", "connectors", *order["words"]]
        stdin, out, err = files
        try:
            process = warm.start(command, order["environ"], out, err, stdin=stdin, cwd=order["cwd"])
        finally:
            for file in files:
                os.close(file)
        guard.adopt(process.pid, signal.SIGKILL, _NOTHING)
        _pass_signals_on(asked, process)
        code = process.wait()
        guard.release(process.pid)
        with suppress(OSError):
            asked.send(b"%d" % code)


def _pass_signals_on(asked: socket.socket, process: warm.Started) -> None:
    """Pass signals on until the process has ended; SIGKILL when the program that asked is gone."""
    ended = os.pidfd_open(process.pid)
    try:
        while True:
            ready, _, _ = select.select([asked, ended], [], [])
            if ended in ready:
                return
            result = asked.recv(16)
            process.send_signal(int(result) if result else signal.SIGKILL)
            if not result:
                return
    finally:
        os.close(ended)
