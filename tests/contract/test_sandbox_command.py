"""`meterbridge lago-sandbox` as a process: each of its options does what its help says."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.support.ports import free_port
from tests.support.sandbox import event

PLAN = {
    "name": "p",
    "code": "p",
    "interval": "monthly",
    "amount_cents": 0,
    "amount_currency": "USD",
    "pay_in_advance": False,
}


@asynccontextmanager
async def sandbox(*words: str) -> AsyncIterator[httpx.AsyncClient]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "connectors", "lago-sandbox", "--port", str(port), *words),
        env={"PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while "Lago sandbox on" not in (await process.stdout.readline()).decode():
                pass
        headers = {"Authorization": "Bearer secret"}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}/api/v1", headers=headers, trust_env=False, timeout=30
        ) as http:
            yield http
    finally:
        process.terminate()
        await process.wait()


async def test_it_takes_its_key_alone_and_keeps_its_journal_over_a_restart(tmp_path: Path) -> None:
    journal = str(tmp_path / "journal")
    async with sandbox("--api-key", "secret", "--journal", journal) as http:
        assert (await http.get("/plans", headers={"Authorization": "Bearer other"})).status_code == 401
        assert (await http.post("/plans", json={"plan": PLAN})).status_code == 200
        posted = await http.post("/events", json={"event": event("t-1")})
        assert posted.status_code == 200, posted.text
    async with sandbox("--api-key", "secret", "--journal", journal) as http:
        events = (await http.get("/events")).json()["events"]
        assert [one["transaction_id"] for one in events] == ["t-1"]


async def test_it_waits_counts_and_answers_as_its_options_say() -> None:
    async with sandbox("--delay", "0.3", "--rate-limit", "1", "--store", "clickhouse") as http:
        begun = time.monotonic()
        answers = [await http.post("/events", json={"event": event(f"t-{number}")}) for number in range(2)]
        assert time.monotonic() - begun >= 0.3
        assert [answer.status_code for answer in answers] == [200, 429]
        assert answers[1].headers["X-RateLimit-Limit"] == "1"
        told = (await http.get("/organizations")).json()
        assert "clickhouse" in json.dumps(told)
