"""Everything that the faults of a trial need, and what several of them share."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import TopicPartition

from tests.alarms import damage
from tests.alarms.monitor import Monitor
from tests.alarms.relay import Relay
from tests.alarms.traffic import Traffic
from tests.faults.world import MASTER_KEY, OURS, World, insist
from tests.support.kafka import MavenKafka
from tests.support.postgres import LocalPostgres
from tests.support.webhook_receiver import Receiver

#: Seconds that a start, and a mapping, may take on a busy machine.
_UP_S, _MAPPED_S = 90.0, 400.0


@dataclass(slots=True)
class Scene:
    """A running product with all its services.

    Fields:
        eu: the URL of the further Lago organisation, a process `sandbox-eu` of the world.
        certificate: the file that `KAFKA_SSL_CAFILE` names.
        relays: between a process, by its name, and Kafka.
        receiver: of outgoing webhooks.
        metrics: the port of the metrics of each process that Prometheus is to ask.
    """

    world: World
    monitor: Monitor
    traffic: Traffic
    kafka: MavenKafka
    postgres: LocalPostgres
    certificate: Path
    eu: str
    relays: dict[str, Relay]
    receiver: Receiver
    metrics: dict[str, int]

    @property
    def database(self) -> str:
        """The URL of the product's database."""
        return self.world.common["DATABASE_URL"]

    async def stranger_writes(self, topic: str, value: bytes) -> None:
        """Write a record into one of the product's topics that the product cannot read."""
        await asyncio.to_thread(damage.put, self.kafka.bootstrap, TopicPartition(topic, 0), value, b"somebody")

    async def lago(self, at: str = "", **rule: object) -> None:
        """Make the stand-in for Lago at this URL fail, by default the first one; without a rule it works again."""
        async with httpx.AsyncClient(base_url=at or self.world.url("sandbox"), trust_env=False) as http:
            if rule:
                (await http.post("/__faults", json={"rules": [rule]})).raise_for_status()
            else:
                (await http.delete("/__faults")).raise_for_status()

    async def stopped(self, name: str) -> None:
        """End a process, and keep it stopped."""
        await self.world.processes[name].kill()

    async def started(self, name: str) -> None:
        """Start it again; returns when it is up."""
        self.world.processes[name].start()
        await self.world.processes[name].up(_UP_S)

    async def restarted(self, *names: str) -> None:
        """End processes and start them again."""
        await asyncio.gather(*(self.stopped(name) for name in names))
        await asyncio.gather(*(self.started(name) for name in names))

    @contextlib.asynccontextmanager
    async def joined_by(self, name: str, *, scraped: bool = True) -> AsyncIterator[None]:
        """A further process runs within the block, and Prometheus scrapes it, too."""
        await self.started(name)
        if scraped:
            port = self.world.ports[f"metrics-{name}"]
            self.monitor.scrape([*self.metrics.values(), port])
            await self.monitor.asked(port)
        yield
        self.monitor.scrape(self.metrics.values())
        await self.world.processes[name].terminate()

    def api(self) -> httpx.AsyncClient:
        """A client of the management API with the master key."""
        headers = {"Authorization": f"Bearer {MASTER_KEY}"}
        return httpx.AsyncClient(base_url=self.world.url("api"), headers=headers, trust_env=False, timeout=30)

    async def map(self, customer: str, org: str, organization: str = "main") -> None:
        """Map a customer, as an operator would: repeated until it succeeds."""
        body = {"litellm_customer_id": customer, "lago_customer_id": org, "lago_organization_id": organization}
        await insist(self.world.url("api") + "/customers/mapping", body, MASTER_KEY, _MAPPED_S)

    async def command(self, *words: str) -> None:
        """Run a command of the product. Raises: RuntimeError: it failed; with what it printed."""
        await command(self.world, *words)

    async def grant(self, account: str, dollars: int) -> None:
        """Give prepaid credits."""
        await self.command(
            "credits", "grant", account, str(dollars), "--comment", "trial", "--key", f"{account}-{dollars}", "--new"
        )

    async def written_off(self, customer: str) -> None:
        """Write off everything that is held for a customer."""
        await self.command("held", "write-off", "--customer", customer, "--comment", "trial")


async def command(world: World, *words: str) -> None:
    """Run a command of the product. Raises: RuntimeError: it failed; with what it printed."""
    environ = {**os.environ, **world.environ("topics")}
    done = await asyncio.create_subprocess_exec(
        *OURS, *words, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await done.communicate()
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {printed.decode()[-1000:]}")


Fault = Callable[[Scene], AbstractAsyncContextManager[None]]


def killed(*names: str) -> Fault:
    """Kill these processes; they are not restarted."""

    @contextlib.asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[None]:
        await asyncio.gather(*(scene.stopped(name) for name in names))
        yield
        await asyncio.gather(*(scene.started(name) for name in names))

    return fault


def lago_answers(**rule: Any) -> Fault:
    """Make the stand-in for Lago answer by a rule of connectors/lago_sandbox/faults.py."""

    @contextlib.asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[None]:
        await scene.lago(**rule)
        yield
        await scene.lago()

    return fault


def sent(*bodies: Callable[[Traffic], object], path: str = "/webhook/litellm/usage") -> Fault:
    """Post these bodies; their effect ends by itself."""

    @contextlib.asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[None]:
        for body in bodies:
            status = await scene.traffic.send(body(scene.traffic), path)
            assert status == 202, status
        yield

    return fault


async def again_and_again(work: Callable[[], Any], every_s: float) -> None:
    """Repeat it until cancelled."""
    while True:
        await work()
        await asyncio.sleep(every_s)


@contextlib.asynccontextmanager
async def meanwhile(work: Callable[[], Any], every_s: float = 0.5) -> AsyncIterator[None]:
    """Do something again and again within the block. Raises: what the work raised."""
    task = asyncio.ensure_future(again_and_again(work, every_s))
    try:
        yield
    finally:
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
