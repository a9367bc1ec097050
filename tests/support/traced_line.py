"""A call's path through real processes with traces: ingress, meter, sink and a Lago sandbox."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tests.support.eventually import PATIENCE
from tests.support.kafka import Kafka
from tests.support.running_roles import TOKEN, RunningRoles, running_roles
from tests.support.stage import Stage


@dataclass
class TracedLine:
    """The processes, and access to their results."""

    roles: RunningRoles
    session: aiohttp.ClientSession

    async def post(self, call: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        """Post one call to the webhook."""
        sent = {"Authorization": f"Bearer {TOKEN}", **(headers or {})}
        async with self.session.post(f"{self.roles.url}/webhook/litellm/usage", json=call, headers=sent) as answer:
            assert answer.status == 202, await answer.text()

    async def billed(self) -> list[dict[str, Any]]:
        """Return the events at Lago."""
        async with self.session.get(f"{self.roles.lago}/__events") as answer:
            return [msgspec.json.decode(line) for line in (await answer.read()).splitlines()]

    async def until_billed(self, calls: int, limit_s: float = 90.0) -> list[dict[str, Any]]:
        """Return the events, once they bill `calls` calls."""
        deadline = time.monotonic() + limit_s * PATIENCE
        while True:
            events = await self.billed()
            if sum(int(event["properties"]["requests"]) for event in events) >= calls:
                return events
            assert time.monotonic() < deadline, f"{len(events)} events\n" + self.tails()
            await asyncio.sleep(0.1)

    async def spans_counted(self, role: str) -> dict[str, float]:
        """Return `meterbridge_trace_spans_total` of a process, by outcome."""
        async with self.session.get(f"http://127.0.0.1:{self.roles.metrics_ports[role]}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        found = [line for line in lines if line.startswith("meterbridge_trace_spans_total{")]
        return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in found}

    def log(self, role: str) -> str:
        """Return what a process wrote."""
        return self.roles.processes[role].log.read_text()

    def tails(self) -> str:
        """Return the ends of all logs."""
        return "\n".join(process.tail() for process in self.roles.processes.values())


@asynccontextmanager
async def traced_line(kafka: Kafka, prefix: str, folder: Path, **environ: str) -> AsyncIterator[TracedLine]:
    """Four running processes; `environ`: further variables of theirs."""
    Stage(kafka.bootstrap, prefix, partitions=1)
    async with (
        running_roles(kafka.bootstrap, prefix, folder, KAFKA_PARTITIONS="1", **environ) as roles,
        aiohttp.ClientSession() as session,
    ):
        yield TracedLine(roles, session)
