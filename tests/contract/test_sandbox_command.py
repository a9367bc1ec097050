"""`meterbridge lago-sandbox` as a process: each option does what its help says."""

import asyncio
import hmac
import json
import os
import socket
import sys
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from tests.support.eventually import PATIENCE, within
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
async def sandbox(*words: str, host: str = "127.0.0.1") -> AsyncIterator[httpx.AsyncClient]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "connectors", "lago-sandbox", "--port", str(port), *words),
        env={"PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with within(60):
            while "Lago sandbox on" not in (await process.stdout.readline()).decode():
                pass
        headers = {"Authorization": "Bearer secret"}
        async with httpx.AsyncClient(
            base_url=f"http://{host}:{port}/api/v1", headers=headers, trust_env=False, timeout=30 * PATIENCE
        ) as http:
            yield http
    finally:
        process.terminate()
        await process.wait()


async def test_the_sandbox_accepts_only_its_key_and_keeps_its_journal_over_a_restart(tmp_path: Path) -> None:
    journal = str(tmp_path / "journal")
    async with sandbox("--api-key", "secret", "--journal", journal) as http:
        assert (await http.get("/plans", headers={"Authorization": "Bearer other"})).status_code == 401
        assert (await http.post("/plans", json={"plan": PLAN})).status_code == 200
        posted = await http.post("/events", json={"event": event("t-1")})
        assert posted.status_code == 200, posted.text
    async with sandbox("--api-key", "secret", "--journal", journal) as http:
        events = (await http.get("/events")).json()["events"]
        assert [one["transaction_id"] for one in events] == ["t-1"]


async def test_the_sandbox_delays_counts_and_answers_as_its_options_say() -> None:
    async with sandbox("--delay", "0.3", "--rate-limit", "1", "--store", "clickhouse") as http:
        begun = time.monotonic()
        both = await asyncio.gather(*(http.post("/events", json={"event": event(f"t-{n}")}) for n in range(2)))
        assert time.monotonic() - begun >= 0.3
        answers = sorted(both, key=lambda answer: answer.status_code)
        assert [answer.status_code for answer in answers] == [200, 429], "two within one second"
        assert answers[1].headers["X-RateLimit-Limit"] == "1"
        result = (await http.get("/organizations")).json()
        assert "clickhouse" in json.dumps(result)


@pytest.mark.parametrize(("words", "billed"), [((), 2), (("--dedup",), 1)])
async def test_a_repeat_is_billed_once_with_the_option_dedup(words: tuple[str, ...], billed: int) -> None:
    async with sandbox("--store", "clickhouse", *words) as http:
        for _ in range(2):
            assert (await http.post("/events", json={"event": event("t-1")})).status_code == 200
        root = http.base_url.copy_with(path="/__stats")
        assert (await http.get(root)).json()["totals"]["events"] == billed


@pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is loopback on Linux alone")
async def test_the_sandbox_listens_on_its_host_and_signs_its_webhooks_with_its_secret() -> None:
    came = asyncio.Queue[tuple[bytes, str]]()

    async def take(request: web.Request) -> web.Response:
        await came.put((await request.read(), request.headers["X-Lago-Signature"]))
        return web.Response()

    application = web.Application()
    application.add_routes([web.post("/hook", take)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with sandbox("--host", "127.0.0.2", "--webhook-secret", "ours", host="127.0.0.2") as http:
            with pytest.raises(httpx.ConnectError):
                await http.get(str(http.base_url).replace("127.0.0.2", "127.0.0.1"))
            hook = {"webhook_url": f"http://127.0.0.1:{runner.addresses[0][1]}/hook", "signature_algo": "hmac"}
            assert (await http.post("/webhook_endpoints", json={"webhook_endpoint": hook})).status_code == 200
            assert (await http.post("/customers", json={"customer": {"external_id": "org_1"}})).status_code == 200
            body, signature = await asyncio.wait_for(came.get(), 20 * PATIENCE)
    finally:
        await runner.cleanup()
    assert signature == b64encode(hmac.digest(b"ours", body, sha256)).decode()


async def test_a_port_in_use_is_reported_in_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "connectors", "lago-sandbox", "--port", str(port)),
            env={"PATH": os.environ["PATH"]},
            stderr=asyncio.subprocess.PIPE,
        )
        _, output = await process.communicate()
    sentence = f"--port {port} on 127.0.0.1 cannot be used: Address already in use; stop the other program, or choose another port"
    assert (process.returncode, " ".join(output.decode().split())) == (2, f"meterbridge: {sentence}")
