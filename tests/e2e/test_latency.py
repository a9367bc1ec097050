"""Per-call mode, one worker, a Lago that answers in 5 ms: from webhook to Lago in under a second."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.faults.procs import Process
from tests.support.kafka import Kafka
from tests.support.ports import free_port
from tests.support.stage import Stage

#: What CI has time for; `SECONDS=60` measures.
RATE, SECONDS = 200, int(os.environ.get("SECONDS") or 5)
WARM_UP = 1000
#: What is promised of a machine that has nothing else to do; the printed line shows what was measured.
P99_S = 1.0
#: The minimum for a shared machine, which may pause for a second now and then.
P50_BOUND_S, P99_BOUND_S = 1.0, 3.0
TOKEN = "webhook-token"


@pytest.mark.alone
async def test_a_call_reaches_lago_within_a_second(kafka: Kafka, topic_prefix: str, tmp_path: Path) -> None:
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=12)
    for number in range(20):
        stage.map(f"customer-{number}", f"org-{number}", f"sub-{number}")
    ports = {name: free_port() for name in ("lago", "http", "m0", "m1", "m2")}
    environ = {
        "PATH": str(Path(sys.executable).parent),
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "TOPIC_PREFIX": topic_prefix,
        "LAGO_API_URL": f"http://127.0.0.1:{ports['lago']}",
        "LAGO_API_KEY": "key",
        "WEBHOOK_TOKEN": TOKEN,
        "PORT": str(ports["http"]),
        "WINDOW_SECONDS": "0",
    }
    command = [sys.executable, "-m", "connectors"]
    commands = {
        "lago": ["lago-sandbox", "--port", str(ports["lago"]), "--delay", "0.005"],
        "ingress": ["serve", "--only", "webhooks"],
        "meter": ["worker", "--only", "meter"],
        "sink": ["worker", "--only", "sink"],
    }
    said = {"lago": "Lago sandbox on", "ingress": '"event": "ready"'}
    processes = []
    for number, (name, arguments) in enumerate(commands.items()):
        there = {**environ, "METRICS_PORT": str(ports[f"m{max(0, number - 1)}"])}
        word = said.get(name, '"event": "worker_started"')
        processes.append(
            Process(name, [*command, *arguments], there, tmp_path, time.monotonic, lambda log, w=word: w in log)
        )
    try:
        for process in processes:
            process.start()
        await asyncio.gather(*(process.up(60) for process in processes))
        async with aiohttp.ClientSession() as session:
            # Groups are joined and ledgers opened once the first calls have arrived; a broker that has just been
            # started runs its transactions in a cold JVM.
            await send(session, f"http://127.0.0.1:{ports['http']}", range(-WARM_UP, 0), RATE)
            await arrivals(session, environ["LAGO_API_URL"], WARM_UP)
            # A machine that had something else to do for seconds gets a second chance.
            for attempt in range(2):
                numbers = range(attempt * RATE * SECONDS, (attempt + 1) * RATE * SECONDS)
                sent = await send(session, f"http://127.0.0.1:{ports['http']}", numbers, RATE)
                arrived = await arrivals(session, environ["LAGO_API_URL"], WARM_UP + numbers.stop)
                waits = sorted(arrived[number] - sent[number] for number in sent)
                p50, p99 = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
                print(f"webhook to Lago, {len(waits)} calls: p50 {p50:.3f} s, p99 {p99:.3f} s, most {waits[-1]:.3f} s")
                if p99 < P99_S:
                    break
    finally:
        await asyncio.gather(*(process.kill() for process in processes))
    assert p50 < P50_BOUND_S
    assert p99 < P99_BOUND_S


async def send(session: aiohttp.ClientSession, url: str, numbers: range, rate: int) -> dict[int, float]:
    """One post a call at a steady rate; returns the start time of each, seconds since 1970."""
    begun: dict[int, float] = {}
    start = time.time()

    async def post(number: int) -> None:
        begun[number] = time.time()
        moment = begun[number]
        # The cost identifies the call at Lago: 1 cent and the call's number in 1e-6 cents.
        call: dict[str, Any] = {"id": f"r{number}", "litellm_call_id": f"c{number}", "user": f"customer-{number % 20}"}
        call |= {"model": "gpt-4o", "total_tokens": 5, "spend": f"{0.01 + (number + WARM_UP) * 1e-8:.8f}"}
        call |= {"startTime": moment - 0.1, "endTime": moment}
        async with session.post(
            f"{url}/webhook/litellm/usage", json=call, headers={"Authorization": f"Bearer {TOKEN}"}
        ) as answer:
            assert answer.status == 202, await answer.text()

    async with asyncio.TaskGroup() as group:
        for place, number in enumerate(numbers):
            await asyncio.sleep(max(0.0, start + place / rate - time.time()))
            group.create_task(post(number))
    return begun


async def arrivals(session: aiohttp.ClientSession, url: str, count: int) -> dict[int, float]:
    """The time at which each call was accepted, seconds since 1970, by its number."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        async with session.get(f"{url}/__stats") as answer:
            if (await answer.json())["totals"]["calls"] >= count:
                break
        await asyncio.sleep(0.2)
    async with session.get(f"{url}/__events") as answer:
        lines = (await answer.read()).splitlines()
    events = [msgspec.json.decode(line) for line in lines]
    return {
        round((float(event["properties"]["cost_usd"]) - 0.01) * 1e8) - WARM_UP: event["accepted_at"] for event in events
    }
