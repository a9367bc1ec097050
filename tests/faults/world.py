"""The world of a run: a broker, a Lago, and every role of the product as its own process, with the default settings."""

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from schemas.topics import TopicNames
from tests.faults.calls import CUSTOMERS
from tests.faults.procs import Process
from tests.faults.recording import CODE
from tests.support.eventually import PATIENCE
from tests.support.kafka import Kafka, start_kafka
from tests.support.ports import free_port, free_ports_in_a_row

ORGS = tuple(f"org-{n:02d}" for n in range(12))
PARTITIONS = 6
KEY, TOKEN, SECRET, MASTER_KEY = "lago-key", "webhook-token", "webhook-secret", "sk-master"
#: What a process logs once it is up.
SERVES, WORKS = '"event": "ready"', '"event": "worker_started"'
_UP_LIMIT_S = 60.0
#: The command line of this tree's own program.
OURS = (sys.executable, "-m", "connectors")


def org_of(customer: str) -> str:
    """Return the org that pays for a customer."""
    return ORGS[CUSTOMERS.index(customer) % len(ORGS)]


def subscription_of(customer: str) -> str:
    """Return the external id of the subscription that a customer's calls are billed on."""
    return "sub-" + org_of(customer)


def mapped_late(customer: str) -> bool:
    """Return whether a customer is mapped only while its calls arrive: every third one."""
    return CUSTOMERS.index(customer) % 3 == 2


@dataclass(slots=True)
class World:
    """The running system.

    Fields:
        processes: by name; `meter-2` and `sink-2` belong to the third worker and do not run yet.
        clock_s: seconds since `begin`, negative before.
        ingress, common: further variables of the ingress, and of every process.
        each: further variables of one process, by its name.
        program: the command line of a process, by its name, before its words.
    """

    broker: Kafka
    folder: Path
    prefix: str
    ports: dict[str, int]
    processes: dict[str, Process] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)
    ingress: Mapping[str, str] = field(default_factory=dict)
    common: Mapping[str, str] = field(default_factory=dict)
    each: Callable[[str], Mapping[str, str]] = lambda _: {}
    program: Callable[[str], Sequence[str]] = lambda _: OURS

    def clock_s(self) -> float:
        """Return seconds since the load began."""
        return time.monotonic() - self.begun

    @property
    def topics(self) -> TopicNames:
        """Their names on the broker."""
        return TopicNames.with_prefix(self.prefix)

    def url(self, name: str) -> str:
        """Return where `ingress`, `api` or `sandbox` listens."""
        return f"http://127.0.0.1:{self.ports[name]}"

    async def map(self, customer: str) -> None:
        """Map a customer, as an operator would: repeated until it succeeds."""
        body: dict[str, Any] = {"litellm_customer_id": customer, "lago_customer_id": org_of(customer)}
        body["lago_organization_id"] = "tenant-1"
        if CUSTOMERS.index(customer) % 2:
            body["external_subscription_id"] = subscription_of(customer)
        await insist(self.url("api") + "/customers/mapping", body, MASTER_KEY)

    def environ(self, name: str) -> dict[str, str]:
        """Return the environment of a process: addresses and settings that shorten the run, nothing else."""
        return {
            "PATH": str(Path(sys.executable).parent),
            "KAFKA_BOOTSTRAP_SERVERS": self.broker.bootstrap,
            "KAFKA_PARTITIONS": str(PARTITIONS),
            "TOPIC_PREFIX": self.prefix,
            "LAGO_API_URL": self.url("sandbox"),
            "LAGO_API_KEY": KEY,
            "LITELLM_MASTER_KEY": MASTER_KEY,
            "WEBHOOK_TOKEN": TOKEN,
            "WEBHOOK_SECRET": SECRET,
            "PORT": str(self.ports["ingress"]),
            "CANARY_URL": self.url("ingress"),
            "API_PORT": str(self.ports["api"]),
            "METRICS_PORT": str(self.ports.get("metrics-" + name, 0)),
            "WINDOW_SECONDS": "10",
            "RETRY_DELAY": "2",
            "WORKER_PROCESSES": "one",
            **self.common,
            **(self.ingress if name == "ingress" else {}),
            **self.each(name),
        }


#: What runs, by name.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "sandbox": ("lago-sandbox",),
    "ingress": ("serve", "--only", "webhooks"),
    "api": ("serve", "--only", "api"),
    **{f"meter-{n}": ("worker", "--only", "meter") for n in range(3)},
    **{f"sink-{n}": ("worker", "--only", "sink") for n in range(3)},
    "retry-0": ("worker", "--only", "retry"),
    # Two processes of two roles each: a fault of the process affects both roles, and a role that fails is restarted beside the other.
    "meter-1": ("worker", "--only", "meter,retry"),
    "sink-1": ("worker", "--only", "sink,retry"),
}
#: The command of a canary, which is set up before it can run.
CANARY = {"canary": ("canary",)}
#: With `DATABASE_URL` among the common variables.
_PROJECTOR = {"project-0": ("worker", "--only", "project")}


@asynccontextmanager
async def running_world(
    environ: Mapping[str, str],
    folder: Path,
    *,
    broker: Kafka | None = None,
    ingress: Mapping[str, str] | None = None,
    common: Mapping[str, str] | None = None,
    each: Callable[[str], Mapping[str, str]] = lambda _: {},
    prefix: str = "",
    commands: Mapping[str, tuple[str, ...]] = COMMANDS,
    program: Callable[[str], Sequence[str]] = lambda _: OURS,
    forked: bool = True,
    joins_later: Collection[str] = ("meter-2", "sink-2"),
) -> AsyncIterator[World]:
    """Everything is running, twelve orgs subscribed, two thirds of the customers mapped; removed afterwards, except the
    logs.

    A `broker` that is handed in stays. `ingress`, `common`: further variables of the ingress, and of every process;
    with `DATABASE_URL` in `common` there is a projector too. `each`: further variables of one process, by its name.
    `commands`: what runs; an `ingress` without an `api` beside it is to serve both. `program`: whose, by name; the
    topics are created by that of `topics`. `forked`: see tests/support/warm.py.
    `joins_later`: processes that are not started.
    """
    async with AsyncExitStack() as stack:
        if broker is None:
            broker = await asyncio.to_thread(start_kafka, environ)
            stack.callback(broker.stop)
        commands = {**commands, **(_PROJECTOR if "DATABASE_URL" in (common or {}) else {})}
        ports = {name: free_port() for name in ("sandbox", "ingress", "api")}
        ports |= {f"metrics-{name}": free_ports_in_a_row(_roles(command))[0] for name, command in commands.items()}
        world = World(
            broker,
            folder,
            prefix or f"f{uuid.uuid4().hex[:6]}.",
            ports,
            ingress=ingress or {},
            common=common or {},
            each=each,
            program=program,
        )
        world.processes = {name: _process(world, name, command, forked=forked) for name, command in commands.items()}
        stack.push_async_callback(_end, world)
        await _create_topics(world)
        for name, process in world.processes.items():
            if name not in joins_later and name not in CANARY:
                process.start()
        await asyncio.gather(*(p.up(_UP_LIMIT_S) for p in world.processes.values() if p.wanted))
        await _subscribe(world)
        await asyncio.gather(*(world.map(customer) for customer in CUSTOMERS if not mapped_late(customer)))
        watching = [asyncio.ensure_future(process.watch()) for process in world.processes.values()]
        stack.callback(lambda: [task.cancel() for task in watching])
        world.begun = time.monotonic()
        yield world


def _roles(command: Sequence[str]) -> int:
    """Return the number of roles that a command runs: it has as many metrics ports, in a row."""
    return command[-1].count(",") + 1


def _process(world: World, name: str, arguments: tuple[str, ...], *, forked: bool) -> Process:
    command = [*world.program(name), *arguments]
    if name == "sandbox":
        command += ["--port", str(world.ports["sandbox"])]
        if world.common:  # who sets more may also stop it and start it again
            command += ["--journal", str(world.folder / "lago.journal")]
    said = {"sandbox": "Lago sandbox on", "ingress": SERVES, "api": SERVES, "canary": "canary_started"}.get(name, WORKS)
    return Process(
        name, command, world.environ(name), world.folder, world.clock_s, lambda log: said in log, forked=forked
    )


async def _create_topics(world: World) -> None:
    create = Process(
        "topics",
        [*world.program("topics"), "topics", "create"],
        world.environ("topics"),
        world.folder,
        world.clock_s,
    )
    create.start()
    deadline = time.monotonic() + _UP_LIMIT_S * PATIENCE
    while create.alive and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    death = await create.terminate()
    del death
    if create.deaths[-1].code != 0:
        raise RuntimeError(f"topics create: {create.deaths[-1]}\n{create.tail()}")


async def _subscribe(world: World) -> None:
    """Create a plan whose one charge bills what the events say, and a subscription for every org since two days ago."""
    lago = world.url("sandbox") + "/api/v1"
    calls = {"name": "API calls", "code": CODE, "aggregation_type": "count_agg"}
    await insist(lago + "/billable_metrics", {"billable_metric": calls}, KEY)
    metric = {"name": "AI usage", "code": "ai_usage", "aggregation_type": "sum_agg", "field_name": "unit"}
    created = await insist(lago + "/billable_metrics", {"billable_metric": metric}, KEY)
    plan = {"name": "AI", "code": "ai", "interval": "monthly", "amount_cents": 0, "amount_currency": "USD"}
    charge = {"billable_metric_id": created["billable_metric"]["lago_id"], "charge_model": "dynamic"}
    await insist(lago + "/plans", {"plan": {**plan, "pay_in_advance": False, "charges": [charge]}}, KEY)
    since = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    for org in ORGS:
        subscription = {"external_customer_id": org, "external_id": "sub-" + org, "plan_code": "ai"}
        await insist(lago + "/subscriptions", {"subscription": {**subscription, "subscription_at": since}}, KEY)


async def insist(url: str, body: dict[str, Any], token: str, limit_s: float = 150.0) -> dict[str, Any]:
    """POST until it is answered 2xx.

    Raises:
        RuntimeError: an answer that repeating does not change, or none in time.
    """
    deadline = time.monotonic() + limit_s * PATIENCE
    patience = aiohttp.ClientTimeout(total=30)
    said = ""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        while time.monotonic() < deadline:
            try:
                async with session.post(url, json=body, timeout=patience) as response:
                    if response.status in (200, 201):
                        answer: dict[str, Any] = await response.json()
                        return answer
                    said = f"{response.status} {(await response.text())[:500]}"
                    if response.status < 500:
                        break
            except (aiohttp.ClientError, TimeoutError) as error:
                said = repr(error)
            await asyncio.sleep(0.3)
    raise RuntimeError(f"POST {url}: {said}")


async def _end(world: World) -> None:
    await asyncio.gather(*(process.kill() for process in world.processes.values()))
