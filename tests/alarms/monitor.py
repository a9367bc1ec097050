"""A real Prometheus on loopback that scrapes a trial's processes each second, and its results."""

import asyncio
import contextlib
import json
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.alarms.shortened import shortened
from tests.support import guard
from tests.support.ports import free_port
from tests.support.prometheus import program

_UP_LIMIT_S = 30.0


@dataclass(slots=True)
class Monitor:
    """A running Prometheus.

    Fields:
        targets: the file from which it learns what to scrape.
        seen: the alarms that have fired since the last `forget`, and when.
        damaged: those whose text has an error.
        pending: an alarm is about to fire.
    """

    http: httpx.AsyncClient
    targets: Path
    seen: dict[str, float] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    pending: bool = False

    async def firing(self) -> set[str]:
        """The names of the alarms that fire now."""
        answer = (await self.http.get("/api/v1/alerts")).json()["data"]["alerts"]
        now = [alert for alert in answer if alert["state"] == "firing"]
        self.pending = len(now) < len(answer)
        for alert in now:
            self.seen.setdefault(alert["labels"]["alertname"], time.monotonic())
            if "<error" in json.dumps(alert["annotations"]) or "<no value>" in json.dumps(alert["annotations"]):
                self.damaged.add(alert["labels"]["alertname"])
        return {alert["labels"]["alertname"] for alert in now}

    def scrape(self, ports: Iterable[int]) -> None:
        """Scrape these ports from now on, and no other."""
        listed = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
        arriving = self.targets.with_suffix(".arriving")
        arriving.write_text(json.dumps(listed), "utf-8")
        arriving.replace(self.targets)

    async def asked(self, port: int, limit_s: float = 60.0) -> None:
        """Return once a process that listens there has answered it. Raises: TimeoutError."""
        async with asyncio.timeout(limit_s):
            while await self.number(f'up{{instance="127.0.0.1:{port}"}}') != 1:
                await asyncio.sleep(0.2)

    def forget(self) -> None:
        """Start a new fault."""
        self.seen = {}

    async def until(self, holds: Callable[[set[str]], bool], limit_s: float) -> bool:
        """Whether the condition about firing alarms becomes true within the limit."""
        deadline = time.monotonic() + limit_s
        while not holds(await self.firing()):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.5)
        return True

    async def until_quiet(self, limit_s: float) -> bool:
        """Whether within the limit no alarm fires or is pending."""
        return await self.until(lambda now: not now and not self.pending, limit_s)

    async def look(self, seconds: float) -> None:
        """Record the alarms that fire during the block."""
        await self.until(lambda _: False, seconds)

    async def query(self, expression: str) -> list[Any]:
        """The series of an expression now. Raises: RuntimeError: Prometheus refuses it."""
        answer = (await self.http.get("/api/v1/query", params={"query": expression})).json()
        if answer["status"] != "success":
            raise RuntimeError(f"{expression}: {answer.get('error')}")
        series: list[Any] = answer["data"]["result"]
        return series

    async def number(self, expression: str) -> float:
        """The value of an expression with one series; 0 where it has none."""
        series = await self.query(expression)
        return float(series[0]["value"][1]) if series else 0.0


@contextlib.asynccontextmanager
async def prometheus(folder: Path, ports: Iterable[int]) -> AsyncIterator[Monitor]:
    """Run it with the shortened rules, and scrape `ports`."""
    rules = folder / "rules"
    rules.mkdir()
    shortened(rules)
    config = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "1s", "scrape_timeout": "2s"},
        "rule_files": [f"{rules}/*.yml"],
        "scrape_configs": [
            {
                "job_name": "meterbridge",
                "file_sd_configs": [{"files": [str(folder / "targets.json")], "refresh_interval": "1s"}],
            }
        ],
    }
    (folder / "targets.json").write_text("[]")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    port = free_port()
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("ab") as log:
        process = await asyncio.to_thread(subprocess.Popen, command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    guard.adopt(process.pid, signal.SIGKILL, folder / "tsdb")
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as http:
            async with asyncio.timeout(_UP_LIMIT_S):
                while not await _ready(http):
                    if process.poll() is not None:
                        raise RuntimeError((folder / "prometheus.log").read_text()[-2000:])
                    await asyncio.sleep(0.2)
            monitor = Monitor(http, folder / "targets.json")
            monitor.scrape(ports)
            yield monitor
    finally:
        process.terminate()
        process.wait(20)
        guard.release(process.pid)


async def _ready(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/-/ready")).is_success
    except httpx.TransportError:
        return False
