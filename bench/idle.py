"""`python -m bench.idle`: what an installation costs that bills nothing, in CPU time, wake-ups and memory. Linux only.

A real Kafka, a real Postgres and the sandbox run, and the processes of the compose file (docker-compose.kafka.yml), with
its defaults. Nothing is posted. CPU time and memory are read from /proc, so a busy machine does not change them much.
Not measured: health checks and scrapes of metrics, which other programs ask for.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from bench.process_cost import ProcessCost, cost_of_session
from connectors.demo.processes import Processes, free_ports, without_proxies
from tests.support.kafka import start_kafka
from tests.support.postgres import start_postgres

_RESULTS = Path(__file__).parent / "results" / "idle.json"
_UP_S = 180.0
_OURS = ("worker", "api", "ingress")


@dataclass(frozen=True, slots=True)
class IdleRow:
    """A container's cost while nothing happens; `cpu_percent` is of one core."""

    name: str
    cpu_percent: float
    wakeups_per_s: float
    pss_mib: float


def main() -> None:
    """Start everything, wait until it is quiet, measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="length of the measurement")
    parser.add_argument("--settle", type=float, default=30, help="seconds between readiness and the measurement")
    parser.add_argument("--tree", type=Path, help="measure the product of another work tree instead, and write nothing")
    parser.add_argument(
        "--processes",
        choices=("one", "per_role"),
        default="one",
        help="WORKER_PROCESSES of the worker; what is no default is not kept",
    )
    parser.add_argument("--hold", action="store_true", help="keep everything running until Enter is pressed")
    asked = parser.parse_args()
    rows = measure(asked.seconds, asked.settle, asked.tree, hold=asked.hold, processes=asked.processes)
    _show(rows, asked.seconds)
    if asked.tree is None and asked.processes == "one":
        _RESULTS.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def measure(
    seconds: float, settle_s: float, tree: Path | None = None, *, hold: bool = False, processes: str = "one"
) -> list[IdleRow]:
    """The cost of each container over `seconds`, and their sum, `all`. `processes`: WORKER_PROCESSES of the worker."""
    broker, database = start_kafka(os.environ), start_postgres(os.environ)
    try:
        with tempfile.TemporaryDirectory(prefix="meterbridge-idle-") as folder:
            environ = _environment(broker.bootstrap, database.url, tree) | {"WORKER_PROCESSES": processes}
            for command in (("topics", "create"), ("db", "migrate")):
                subprocess.run([sys.executable, "-m", "connectors", *command], cwd=folder, env=environ, check=True)
            started = Processes(Path(folder), environ)
            try:
                _start(started)
                time.sleep(settle_s)
                before, began = _costs(started), time.monotonic()
                time.sleep(seconds)
                after, elapsed = _costs(started), time.monotonic() - began
                started.check()
                if hold:
                    print(json.dumps(started.ids), file=sys.stderr, flush=True)
                    input("Enter ends it. ")
            finally:
                started.stop()
    finally:
        broker.stop()
        database.stop()
    rows = [_row(name, before[name], after[name], elapsed) for name in _OURS]
    return [*rows, _sum(rows)]


def _environment(kafka: str, postgres: str, tree: Path | None) -> dict[str, str]:
    return {
        **without_proxies(os.environ),
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "DATABASE_URL": postgres,
        "LAGO_API_KEY": "idle",
        "LITELLM_MASTER_KEY": "sk-" + "i" * 40,
        "WEBHOOK_TOKEN": "w" * 40,
        "HOST": "127.0.0.1",
        **({} if tree is None else {"PYTHONPATH": str(tree.resolve())}),
    }


def _start(processes: Processes) -> None:
    """Start them as the compose file does; returns when all are ready. Raises: Unavailable: one has ended."""
    lago, ingress, api, *metrics = free_ports(9)
    url = {"LAGO_API_URL": f"http://127.0.0.1:{lago}"}
    processes.start("lago", "lago-sandbox", "--port", str(lago))
    here = {"PORT": str(ingress), "METRICS_PORT": str(metrics[0])}
    processes.start("ingress", "serve", "--only", "webhooks", **url, **here)
    # METRICS_PORT and the three ports after it.
    processes.start("worker", "worker", **url, METRICS_PORT=str(metrics[1]))
    processes.start("api", "serve", "--only", "api", **url, API_PORT=str(api), METRICS_PORT=str(metrics[5]))
    ready = [ingress, api, *metrics[1:5]]
    deadline = time.monotonic() + _UP_S
    while waiting := [port for port in ready if not _is_ready(port)]:
        processes.check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"not ready after {_UP_S:.0f} s: ports {waiting}")
        time.sleep(0.5)


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready", trust_env=False).is_success
    except httpx.RequestError:
        return False


def _costs(processes: Processes) -> dict[str, ProcessCost]:
    return {name: cost_of_session(processes.ids[name]) for name in _OURS}


def _row(name: str, before: ProcessCost, after: ProcessCost, seconds: float) -> IdleRow:
    cpu_s, wakeups = after.cpu_s - before.cpu_s, after.wakeups - before.wakeups
    return IdleRow(name, round(cpu_s / seconds * 100, 2), round(wakeups / seconds, 1), round(after.pss_mib, 1))


def _sum(rows: Sequence[IdleRow]) -> IdleRow:
    cpu, wakeups = sum(row.cpu_percent for row in rows), sum(row.wakeups_per_s for row in rows)
    return IdleRow("all", round(cpu, 2), round(wakeups, 1), round(sum(row.pss_mib for row in rows), 1))


def _show(rows: Sequence[IdleRow], seconds: float) -> None:
    table = Table(title=f"an idle installation, {seconds:.0f} s", title_justify="left")
    table.add_column("container")
    for heading in ("CPU, % of a core", "wake-ups a second", "PSS, MiB"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row.name, f"{row.cpu_percent:.2f}", f"{row.wakeups_per_s:.0f}", f"{row.pss_mib:.0f}")
    Console(width=None if Console().is_terminal else 100).print(table)


if __name__ == "__main__":
    main()
