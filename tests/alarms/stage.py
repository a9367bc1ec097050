"""The stage of a trial: Kafka, Postgres, Prometheus, two organisations of Lago, a receiver of webhooks, and the product."""

import asyncio
import contextlib
import json
import os
import secrets
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from connectors.postgres.migrate import migrate
from tests.alarms.breakage.credits import STRIPE_SECRET
from tests.alarms.breakage.held import LAGO_SECRET
from tests.alarms.breakage.ingest import RATE_LIMIT, ingress_command
from tests.alarms.breakage.processes import WEBHOOK_SECRET
from tests.alarms.breakage.scene import Scene, command
from tests.alarms.monitor import prometheus
from tests.alarms.relay import relay
from tests.alarms.traffic import ABROAD, traffic
from tests.faults.procs import Process
from tests.faults.world import CANARY, COMMANDS, KEY, OURS, running_world
from tests.support.database import fresh_database
from tests.support.kafka import MavenKafka
from tests.support.ports import free_port
from tests.support.postgres import LocalPostgres
from tests.support.webhook_receiver import webhook_receiver
from tests.unit.telemetry.test_process_metrics import certificate_from_now

#: One process of each role, and those that join for a while.
_PROCESSES = ("sandbox", "ingress", "api", "meter-0", "sink-0", "retry-0")
_JOIN_LATER = ("meter-1", "sink-1", "sink-old")
#: Processes that reach Kafka through a relay.
_RELAYED = ("api", "meter-0")
#: Name of the further Lago organisation.
_EU = "eu"


@contextlib.asynccontextmanager
async def scene_in(folder: Path) -> AsyncIterator[Scene]:
    """Everything running, with a minute of billed usage."""
    async with contextlib.AsyncExitStack() as stack:
        entrances, outside = [free_port() for _ in _RELAYED], [free_port() for _ in _RELAYED]
        kafka = await asyncio.to_thread(_kafka, entrances, outside)
        stack.callback(kafka.stop)
        postgres = await asyncio.to_thread(LocalPostgres)
        stack.callback(postgres.stop)
        database = await stack.enter_async_context(fresh_database(postgres.url))
        await migrate(database)
        relays = {
            name: await stack.enter_async_context(relay(port, entrance))
            for name, port, entrance in zip(_RELAYED, outside, entrances, strict=True)
        }
        receiver = await stack.enter_async_context(webhook_receiver())
        eu = await stack.enter_async_context(_eu(folder))
        certificate = folder / "ca.pem"
        certificate.write_bytes(certificate_from_now(timedelta(days=400)))
        each = {
            **{
                name: {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{port}"}
                for name, port in zip(_RELAYED, outside, strict=True)
            },
            "sink-old": {"PYTHONPATH": str(_older_release(folder))},
        }
        world = await stack.enter_async_context(
            running_world(
                os.environ,
                folder,
                broker=kafka,
                ingress={"SPOOL_PATH": str(folder / "spool.db"), "SPOOL_MAX_BYTES": str(1 << 20)},
                common=_settings(database, certificate, receiver.url, eu[0]),
                each=lambda name: each.get(name, {}),
                commands=_commands(),
                program=_program,
                joins_later=_JOIN_LATER,
            )
        )
        world.processes["sandbox-eu"] = eu[1]
        await command(world, "canary", "setup")
        world.processes["canary"].start()
        await world.processes["canary"].up()
        metrics = {
            name: world.ports[f"metrics-{name}"]
            for name in (*_PROCESSES, "project-0", "canary")
            if name not in ("sandbox", *_JOIN_LATER)
        }
        monitor = await stack.enter_async_context(prometheus(folder, metrics.values()))
        sending = await stack.enter_async_context(traffic(world))
        scene = Scene(world, monitor, sending, kafka, postgres, certificate, eu[0], relays, receiver, metrics)
        await scene.map(ABROAD, "acme", _EU)
        await asyncio.sleep(45)
        yield scene


def _commands() -> Mapping[str, tuple[str, ...]]:
    own = {name: COMMANDS[name] for name in (*_PROCESSES, "meter-1", "sink-1")}
    return {**own, "sink-old": COMMANDS["sink-1"], **CANARY}


def _program(name: str) -> Sequence[str]:
    return ingress_command() if name == "ingress" else OURS


def _settings(database: str, certificate: Path, hook: str, eu: str) -> dict[str, str]:
    """The settings of every process."""
    return {
        "DATABASE_URL": database,
        "KAFKA_SSL_CAFILE": str(certificate),
        "WINDOW_SECONDS": "1",
        "GRACE_SECONDS": "1",
        "BATCH_SIZE": "10",
        "WORKER_CONCURRENCY": "1",
        "CANARY_INTERVAL": "2",
        "CANARY_BILLED_WITHIN": "15",
        "DEDUPE_RETENTION_HOURS": "30",
        "HELD_IN_MEMORY": "100",
        "WEBHOOK_RATE_LIMIT": str(RATE_LIMIT),
        "LAGO_ORGANIZATIONS": json.dumps([{"id": _EU, "url": eu, "key": KEY}]),
        "LAGO_ORGANIZATION_NAMES": "default,main,tenant-1",
        "LAGO_WEBHOOK_SECRET": LAGO_SECRET,
        "OUTGOING_WEBHOOK_URLS": hook,
        "OUTGOING_WEBHOOK_SECRETS": WEBHOOK_SECRET,
        "OUTGOING_WEBHOOK_ALLOW_HTTP": "true",
        "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET,
        "PROVIDER_KEYS_SECRET": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }


def _kafka(entrances: Sequence[int], outside: Sequence[int]) -> MavenKafka:
    """A broker with a listener on each of the ports `entrances`, whose clients get the port of `outside` instead."""
    port, controller = free_port(), free_port()
    names = [f"RELAYED{number}" for number in range(len(entrances))]

    def at(ports: Sequence[int]) -> str:
        own = [f"{name}://127.0.0.1:{one}" for name, one in zip(names, ports, strict=True)]
        return ",".join([f"PLAINTEXT://127.0.0.1:{port}", *own])

    protocols = ",".join(f"{name}:PLAINTEXT" for name in ("PLAINTEXT", "CONTROLLER", *names))
    settings = {
        "listeners": f"{at(entrances)},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": at(outside),
        "listener.security.protocol.map": protocols,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
    }
    return MavenKafka(settings, port)


def _older_release(folder: Path) -> Path:
    """A folder that makes a process of this tree report another version."""
    info = folder / "older" / "meterbridge-0.0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: meterbridge\nVersion: 0.0.1\n")
    return info.parent


@contextlib.asynccontextmanager
async def _eu(folder: Path) -> AsyncIterator[tuple[str, Process]]:
    """The further organisation of Lago, with a plan and the subscription of `acme`; its URL and its process."""
    port = free_port()
    words = ["lago-sandbox", "--port", str(port), "--journal", str(folder / "lago-eu.journal")]
    environ = {"PATH": str(Path(sys.executable).parent)}
    process = Process(
        "sandbox-eu", [*OURS, *words], environ, folder, time.monotonic, lambda log: "Lago sandbox on" in log
    )
    process.start()
    watching = asyncio.ensure_future(process.watch())
    try:
        await process.up()
        await _subscribed(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}", process
    finally:
        watching.cancel()
        await process.kill()


async def _subscribed(url: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=f"{url}/api/v1", headers=headers, trust_env=False) as http:

        async def made(path: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = (await http.post(path, json={name: body})).raise_for_status().json()
            result: dict[str, Any] = answer[name]
            return result

        metric = {"name": "AI usage", "code": "ai_usage", "aggregation_type": "sum_agg", "field_name": "unit"}
        usage = await made("/billable_metrics", "billable_metric", metric)
        plan = {"name": "AI", "code": "ai", "interval": "monthly", "amount_cents": 0, "amount_currency": "USD"}
        charge = {"billable_metric_id": usage["lago_id"], "charge_model": "dynamic"}
        await made("/plans", "plan", {**plan, "pay_in_advance": False, "charges": [charge]})
        acme = {"external_customer_id": "acme", "external_id": "sub-acme", "plan_code": "ai"}
        await made("/subscriptions", "subscription", acme)
