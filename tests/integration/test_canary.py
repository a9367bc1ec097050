"""The canary with real Kafka, the product's processes and the stand-in for Lago: billed to the cent, lost, and billed
twice.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.procs import Process
from tests.faults.world import COMMANDS, KEY, OURS, World, running_world
from tests.support.command import ended
from tests.support.eventually import soon
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.ports import free_port

ORG = "org_meterbridge-canary"
_SETTINGS = {"WINDOW_SECONDS": "1", "GRACE_SECONDS": "1", "CANARY_INTERVAL": "1", "CANARY_BILLED_WITHIN": "15"}


@pytest.fixture
async def world(kafka: Kafka, topic_prefix: str, tmp_path: Path) -> AsyncIterator[World]:
    commands = {name: COMMANDS[name] for name in ("sandbox", "meter-0", "sink-0")} | {"ingress": ("serve",)}
    async with running_world(
        os.environ, tmp_path, broker=kafka, common=_SETTINGS, prefix=topic_prefix, commands=commands
    ) as running:
        yield running


def environ(world: World, **more: str) -> dict[str, str]:
    return {**world.environ("canary"), **more}


async def run(world: World, *words: str, **more: str) -> tuple[int, str, str]:
    """A command of the product: exit code, stdout, stderr."""
    done = await ended(environ(world, **more), *words, limit_s=180)
    return done.code, done.out, done.err


async def lago(world: World, method: str, path: str, **more: Any) -> Any:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with http_client(base_url=world.url("sandbox"), headers=headers, trust_env=False) as http:
        answer = await http.request(method, path, **more)
        assert answer.is_success, answer.text
        return answer.json()


async def events(world: World) -> list[dict[str, Any]]:
    [subscription] = (await lago(world, "GET", f"/api/v1/subscriptions?external_customer_id={ORG}"))["subscriptions"]
    path = f"/api/v1/events?external_subscription_id={subscription['external_id']}"
    listed: list[dict[str, Any]] = (await lago(world, "GET", path))["events"]
    return listed


async def test_the_canary_is_set_up_once_and_reports_whether_its_call_was_billed(world: World) -> None:
    code, _, said = await run(world, "canary", "--once")
    assert (code, "meterbridge canary setup" in said) == (1, True)
    code, printed, _ = await run(world, "canary", "setup")
    assert (code, printed.splitlines()[0]) == (0, "3 made.")
    code, printed, _ = await run(world, "canary", "setup", "--json")
    assert (code, json.loads(printed)) == (0, {"customer": "meterbridge-canary", "org": ORG, "created": []})

    code, printed, said = await run(world, "canary", "--once")
    assert code == 0, printed + said
    assert re.search(r"was billed \d+\.\d s after its post: 0\.01 cents on the subscription", printed)
    assert [event["precise_total_amount_cents"] for event in await events(world)] == ["0.01"]

    code, printed, _ = await run(world, "canary", "--once", "--json", CANARY_BILLED_USD="0.0002")
    assert (code, json.loads(printed)["result"]) == (1, "wrong_amount")

    await lago(world, "POST", "/__faults", json={"rules": [{"kind": "lose"}]})
    code, printed, _ = await run(world, "canary", "--once", "--json", CANARY_BILLED_WITHIN="8")
    assert (code, json.loads(printed)["result"]) == (1, "not_billed")
    await lago(world, "DELETE", "/__faults")

    code, printed, _ = await run(world, "canary", "--once", "--json", WEBHOOK_TOKEN="wrong")
    assert (code, json.loads(printed)["result"]) == (1, "not_posted")
    code, printed, _ = await run(world, "canary", "--once", "--json", WEBHOOK_TOKEN="")
    assert (code, json.loads(printed)["result"]) == (0, "billed"), "it signs"


class Scraped:
    """The canary's metrics."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def all(self) -> dict[str, float]:
        """The samples by series."""
        lines = httpx.get(f"{self.url}/metrics", trust_env=False).text.splitlines()
        pairs = (line.rpartition(" ") for line in lines if line.startswith("meterbridge_canary"))
        return {name: float(value) for name, _, value in pairs}

    async def until(self, name: str, least: float) -> None:
        """Returns once a series has at least this value."""
        await soon(lambda: self.all()[name] >= least, 60)


async def test_an_event_that_lago_accepted_and_lost_is_reported_by_the_canary(world: World, tmp_path: Path) -> None:
    assert (await run(world, "canary", "setup"))[0] == 0
    port = free_port()
    settings = environ(world, METRICS_PORT=str(port), CANARY_BILLED_WITHIN="10")
    process = Process(
        "canary", [*OURS, "canary"], settings, tmp_path, world.clock_s, lambda log: "canary_started" in log
    )
    process.start()
    try:
        await process.up(60)

        metrics = Scraped(port)
        await metrics.until('meterbridge_canary_calls_total{result="billed"}', 3)
        now = metrics.all()
        failing = {name: value for name, value in now.items() if "failing" in name}
        assert set(failing.values()) == {0.0}
        assert now["meterbridge_canary_billed_age_seconds"] < 30
        assert now["meterbridge_canary_posted_total"] >= 3

        await lago(world, "POST", "/__faults", json={"rules": [{"kind": "lose"}]})

        await metrics.until('meterbridge_canary_failing{reason="not_billed"}', 1)
        await lago(world, "DELETE", "/__faults")

        await soon(lambda: metrics.all()['meterbridge_canary_failing{reason="not_billed"}'] == 0, 60)

        newest = (await events(world))[0]
        twin = {name: newest[name] for name in ("external_subscription_id", "code", "properties")}
        twin |= {
            "timestamp": str(datetime.fromisoformat(newest["timestamp"]).timestamp()),
            "precise_total_amount_cents": "0.01",
            "transaction_id": "twin",
        }
        await lago(world, "POST", "/api/v1/events", json={"event": twin})

        await metrics.until('meterbridge_canary_calls_total{result="billed_twice"}', 1)
        ready = await asyncio.to_thread(httpx.get, f"{metrics.url}/health/ready", trust_env=False)
        assert (ready.status_code, ready.json()) == (200, {"status": "ok"})
    finally:
        await process.terminate()
    assert process.deaths[-1].code == 0
