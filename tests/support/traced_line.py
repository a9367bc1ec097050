"""A call's path through real processes with traces: ingress, meter, sink and a Lago sandbox."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tests.faults.procs import Process
from tests.support.kafka import Kafka
from tests.support.ports import free_port
from tests.support.stage import Stage

TOKEN = "webhook-token"
_READY_WORDS = {"lago": "Lago sandbox on", "ingress": '"event": "ready"'}
_COMMANDS = {
    "lago": ("lago-sandbox",),
    "ingress": ("serve", "--only", "webhooks"),
    "meter": ("worker", "--only", "meter"),
    "sink": ("worker", "--only", "sink"),
}


@dataclass
class TracedLine:
    """The processes, and access to their results."""

    processes: dict[str, Process]
    ports: dict[str, int]
    session: aiohttp.ClientSession

    async def post(self, call: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        """Post one call to the webhook."""
        url = f"http://127.0.0.1:{self.ports['http']}/webhook/litellm/usage"
        sent = {"Authorization": f"Bearer {TOKEN}", **(headers or {})}
        async with self.session.post(url, json=call, headers=sent) as answer:
            assert answer.status == 202, await answer.text()

    async def billed(self) -> list[dict[str, Any]]:
        """Return the events at Lago."""
        async with self.session.get(f"http://127.0.0.1:{self.ports['lago']}/__events") as answer:
            return [msgspec.json.decode(line) for line in (await answer.read()).splitlines()]

    async def until_billed(self, calls: int, limit_s: float = 90.0) -> list[dict[str, Any]]:
        """Return the events, once they bill `calls` calls."""
        deadline = time.monotonic() + limit_s
        while True:
            events = await self.billed()
            if sum(int(event["properties"]["requests"]) for event in events) >= calls:
                return events
            assert time.monotonic() < deadline, f"{len(events)} events\n" + self.tails()
            await asyncio.sleep(0.1)

    async def spans_counted(self, role: str) -> dict[str, float]:
        """Return `meterbridge_trace_spans_total` of a process, by outcome."""
        async with self.session.get(f"http://127.0.0.1:{self.ports[role]}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        found = [line for line in lines if line.startswith("meterbridge_trace_spans_total{")]
        return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in found}

    def log(self, role: str) -> str:
        """Return what a process wrote."""
        return self.processes[role].log.read_text()

    def tails(self) -> str:
        """Return the ends of all logs."""
        return "\n".join(process.tail() for process in self.processes.values())


@asynccontextmanager
async def traced_line(kafka: Kafka, prefix: str, folder: Path, **environ: str) -> AsyncIterator[TracedLine]:
    """Four running processes; `environ`: further variables of the three that are ours."""
    Stage(kafka.bootstrap, prefix, partitions=1)
    ports = {name: free_port() for name in ("lago", "http", "ingress", "meter", "sink")}
    base = {
        "PATH": str(Path(sys.executable).parent),
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "KAFKA_PARTITIONS": "1",
        "TOPIC_PREFIX": prefix,
        "LAGO_API_URL": f"http://127.0.0.1:{ports['lago']}",
        "LAGO_API_KEY": "key",
        "WEBHOOK_TOKEN": TOKEN,
        "PORT": str(ports["http"]),
        **environ,
    }
    processes = {}
    for name, words in _COMMANDS.items():
        command = [sys.executable, "-m", "connectors", *words]
        command += ["--port", str(ports["lago"])] if name == "lago" else []
        word = _READY_WORDS.get(name, '"event": "worker_started"')
        there = {**base, "METRICS_PORT": str(ports[name])}
        processes[name] = Process(name, command, there, folder, time.monotonic, lambda log, w=word: w in log)
    try:
        for process in processes.values():
            process.start()
        await asyncio.gather(*(process.up(120) for process in processes.values()))
        async with aiohttp.ClientSession() as session:
            yield TracedLine(processes, ports, session)
    finally:
        await asyncio.gather(*(process.kill() for process in processes.values()))
