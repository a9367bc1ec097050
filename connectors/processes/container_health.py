"""The image's health check: `python -m connectors.processes.container_health` asks the roles that this container runs.

The command line of the container's first process says which roles these are, so one check serves every service:

    serve               /health/ready on PORT, or on API_PORT for the API alone
    worker              /health/ready of every role, on METRICS_PORT and the ports after it
    canary              /health/ready on METRICS_PORT
    lago-sandbox        /health on its port
    any other command   nothing; it is healthy while it runs

This process is started every few seconds, so it imports nothing of the product while the container is healthy.
"""

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from connectors.config.roles import ALWAYS, ROLES

_TIMEOUT_S = 4.0


class Probe(NamedTuple):
    """One HTTP request: a port of this container, and a path."""

    port: int
    path: str


def probes(words: Sequence[str], environ: Mapping[str, str]) -> list[Probe]:
    """Return the requests that check a container whose first process was started with `words`.

    Raises:
        ValueError: a worker has no METRICS_PORT, so it cannot be asked.
    """
    for number, word in enumerate(words):
        if word == "serve":
            return [Probe(_port_of_serve(_option(words[number:], "--only"), environ), "/health/ready")]
        if word == "worker":
            first = _number(environ, "METRICS_PORT", 9090)
            if not first:
                raise ValueError("METRICS_PORT is 0: the health check needs it to ask a worker")
            roles = _roles(_option(words[number:], "--only"), environ)
            return [Probe(first + place, "/health/ready") for place in range(len(roles))]
        if word == "canary" and words[number + 1 :][:1] != ["setup"]:
            return [Probe(_number(environ, "METRICS_PORT", 9090), "/health/ready")]
        if word == "lago-sandbox":
            return [Probe(int(_option(words[number:], "--port") or 3000), "/health")]
    return []


def ask(probe: Probe, host: str) -> str:
    """Send the request; return the problem, or `""`."""
    try:
        with socket.create_connection((host, probe.port), timeout=_TIMEOUT_S) as connection:
            connection.sendall(f"GET {probe.path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    except OSError as error:
        return f"port {probe.port}: {error}"
    head, _, body = answer.decode(errors="replace").partition("\r\n\r\n")
    status = head.split(" ", 2)[1:2]
    return "" if status == ["200"] else f"port {probe.port}: {body[:500] or head[:100]}"


def main() -> int:
    """Return the exit code: 0 = healthy; 1 = not healthy, and the problem is printed for `docker inspect`."""
    words = Path("/proc/1/cmdline").read_bytes().decode(errors="replace").split("\0")
    try:
        wrong = [problem for probe in probes(words, os.environ) if (problem := ask(probe, address(os.environ)))]
    except ValueError as error:
        wrong = [str(error)]
    sys.stdout.write(_text(wrong) if wrong else "ok")
    return 1 if wrong else 0


def _text(wrong: Sequence[str]) -> str:
    from connectors.telemetry.printable import shown

    return shown("\n".join(wrong), lines=True)


def address(environ: Mapping[str, str]) -> str:
    """Return the address at which this container reaches its own servers."""
    host = environ.get("HOST", "")
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _port_of_serve(only: str, environ: Mapping[str, str]) -> int:
    if only == "api":
        return _number(environ, "API_PORT", 3002)
    return _number(environ, "PORT", 8080)


def _roles(only: str, environ: Mapping[str, str]) -> Sequence[str]:
    """Return the roles of a worker: the roles in `only`; otherwise all roles, with the projector only if there is
    Postgres.
    """
    if only:
        return only.split(",")
    database = any(environ.get(name) for name in ("DATABASE_URL", "DATABASE_URL_FILE", "POSTGRES_HOST"))
    return ROLES if database else ALWAYS


def _option(words: Sequence[str], name: str) -> str:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == name:
            return following
        if word.startswith(name + "="):
            return word.removeprefix(name + "=")
    return ""


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    return int(environ.get(name) or default)


if __name__ == "__main__":
    sys.exit(main())
