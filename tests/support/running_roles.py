"""The product's roles as processes, in front of a Lago sandbox that is a process too."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.procs import Process
from tests.support.ports import free_port

TOKEN, MASTER_KEY, LAGO_KEY = "webhook-token", "sk-master", "key"
#: The roles that take a call from the webhook to Lago.
LINE: Mapping[str, Sequence[str]] = {
    "lago": ("lago-sandbox",),
    "ingress": ("serve", "--only", "webhooks"),
    "meter": ("worker", "--only", "meter"),
    "sink": ("worker", "--only", "sink"),
}
#: What a process has in its log once it is ready, by the first word of its command.
_READY = {"lago-sandbox": "Lago sandbox on", "serve": '"event": "ready"', "worker": '"event": "worker_started"'}


@dataclass(frozen=True, slots=True)
class RunningRoles:
    """Processes by name, their metrics ports, and the addresses of the server and of the sandbox."""

    processes: dict[str, Process]
    metrics_ports: dict[str, int]
    url: str
    lago: str


@asynccontextmanager
async def running_roles(
    bootstrap: str, prefix: str, folder: Path, commands: Mapping[str, Sequence[str]] = LINE, **environ: str
) -> AsyncIterator[RunningRoles]:
    """Yield processes that are ready, and kill them afterwards; the topics must exist.

    Args:
        folder: for their logs.
        commands: by name, the words after `meterbridge`; the sandbox gets its port as well.
        environ: further variables of all processes.

    Raises:
        TimeoutError: one is not ready after two minutes; with the end of its log.
    """
    lago, http = free_port(), free_port()
    base = {
        "PATH": str(Path(sys.executable).parent),
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "TOPIC_PREFIX": prefix,
        "LAGO_API_URL": f"http://127.0.0.1:{lago}",
        "LAGO_API_KEY": LAGO_KEY,
        "LITELLM_MASTER_KEY": MASTER_KEY,
        "WEBHOOK_TOKEN": TOKEN,
        "PORT": str(http),
        **environ,
    }
    processes, metrics_ports = dict[str, Process](), dict[str, int]()
    for name, words in commands.items():
        metrics_ports[name] = free_port()
        command = [sys.executable, "-m", "connectors", *words]
        command += ["--port", str(lago)] if words[0] == "lago-sandbox" else []
        there, said = {**base, "METRICS_PORT": str(metrics_ports[name])}, _READY[words[0]]
        processes[name] = Process(name, command, there, folder, time.monotonic, lambda log, said=said: said in log)
    try:
        for process in processes.values():
            process.start()
        await asyncio.gather(*(process.up(120) for process in processes.values()))
        yield RunningRoles(processes, metrics_ports, f"http://127.0.0.1:{http}", base["LAGO_API_URL"])
    finally:
        await asyncio.gather(*(process.kill() for process in processes.values()))
