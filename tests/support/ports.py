"""Free loopback ports that stay free while their owner is dead.

Ports come from below the kernel's ephemeral range: a client that keeps dialling a dead port inside
that range can be given the very port as its own, connect to itself, and hold it for good.
"""

import os
import random
import socket
from collections.abc import Mapping

#: Which run this is, of the two that `make test` has at once: the first word of its `-m`.
RUN = "PYTEST_RUN_MARKER"
#: The number of workers of each run that have ports.
WORKERS = 8
_BOTTOM, _PORTS = 12_000, 1_250


def stretch(environ: Mapping[str, str]) -> range:
    """Return the ports of one worker of a parallel run: of two that draw from the same ones, both may take one that is
    free.
    """
    worker = int(environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    lowest = _BOTTOM + _PORTS * (worker + WORKERS * (environ.get(RUN) == "faults"))
    return range(lowest, lowest + _PORTS)


_MINE = stretch(os.environ)
_handed_out: set[int] = set()


def free_port() -> int:
    """Return a loopback TCP port without a listener, never the same twice in this process.

    Raises:
        RuntimeError: a thousand draws were all taken.
    """
    for _ in range(1_000):
        port = random.choice(_MINE)
        if port not in _handed_out and _is_free(port):
            _handed_out.add(port)
            return port
    raise RuntimeError(f"no free port among {_MINE}")


def free_ports_in_a_row(count: int) -> list[int]:
    """Return this number of consecutive free ports: a worker gives each of its roles the next port.

    Raises:
        RuntimeError: as `free_port`, or a hundred draws had a taken neighbour.
    """
    for _ in range(100):
        first = free_port()
        ports = list(range(first, first + count))
        if not _handed_out & set(ports[1:]) and all(map(_is_free, ports)):
            _handed_out.update(ports)
            return ports
    raise RuntimeError(f"no {count} free ports in a row")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
