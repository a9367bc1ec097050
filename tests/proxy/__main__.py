"""`make trial`: jobs that are polled through a real LiteLLM proxy are billed once, whatever is restarted in between.

The last line begins with `BILLED ONCE` or `MISMATCH`; the exit code says the same.
"""

import asyncio
import os
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path

import httpx
from aiohttp import web

from tests.faults.world import KEY as LAGO_KEY
from tests.faults.world import MASTER_KEY, ORGS, TOKEN, World, running_world
from tests.proxy.provider import Provider
from tests.proxy.proxy import USER, Proxy, configuration, install
from tests.support.ports import free_port

#: Polls of each job, half of them before everything is restarted.
BATCH_POLLS, RESPONSE_POLLS, VIDEO_POLLS = 50, 20, 10
#: What is owed, in cents, at LiteLLM's own prices: a batch of two completions of gpt-4o-mini at half price,
#: a response of the same size, four seconds of sora-2.
OWED = {"batch": Decimal("0.045"), "response": Decimal("0.045"), "video": Decimal(40)}
#: Windows of ten seconds, their grace, and a slow machine.
_BILLED_LIMIT_S = 90.0
_QUIET_S = 20.0


async def trial(folder: Path, *, plain_ids: bool, keep_response: bool) -> list[str]:
    """One proxy configuration; what is wrong afterwards."""
    runner = web.AppRunner(Provider().app(), access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    provider = f"http://127.0.0.1:{port}/v1"
    try:
        async with running_world(os.environ, folder) as world:
            await _map(world)
            endpoint = world.url("ingress") + "/webhook/litellm/usage"
            config = configuration(provider, endpoint, TOKEN, plain_ids=plain_ids, keep_response=keep_response)
            proxy = Proxy(folder, free_port(), config, provider)
            await _drive(world, proxy)
            return await _problems(world)
    finally:
        await runner.cleanup()


async def _drive(world: World, proxy: Proxy) -> None:
    await proxy.start()
    try:
        batch = await proxy.make(
            "/v1/batches", input_file_id="file-in", endpoint="/v1/chat/completions", completion_window="24h"
        )
        response = await proxy.make("/v1/responses", model="gpt-4o-mini", input="hello", background=True)
        video = await proxy.make_video()
        for half in range(2):
            await proxy.poll(f"/v1/batches/{batch}", BATCH_POLLS // 2)
            await proxy.poll(f"/v1/responses/{response}", RESPONSE_POLLS // 2)
            await proxy.poll(f"/v1/videos/{video}", VIDEO_POLLS // 2)
            if not half:
                await proxy.stop()
                await _restart(world)
                await proxy.start()
    finally:
        await proxy.stop()
        await proxy.client.aclose()


async def _restart(world: World) -> None:
    """Every process of the product is stopped; the watch of the world starts it again."""
    names = [name for name, process in world.processes.items() if process.wanted and name != "sandbox"]
    for name in names:
        await world.processes[name].kill()
    for name in names:
        await world.processes[name].up()


async def _map(world: World) -> None:
    body = {"litellm_customer_id": USER, "lago_customer_id": ORGS[0], "lago_organization_id": "tenant-1"}
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {MASTER_KEY}"}, trust_env=False) as http:
        (await http.post(world.url("api") + "/customers/mapping", json=body)).raise_for_status()


async def _problems(world: World) -> list[str]:
    """Wait until what is owed is billed and nothing more comes; what differs."""
    owed, billed, changed = sum(OWED.values()), Decimal(0), time.monotonic()
    deadline = time.monotonic() + _BILLED_LIMIT_S
    while time.monotonic() < deadline and not (billed == owed and time.monotonic() - changed > _QUIET_S):
        await asyncio.sleep(1)
        now = await _billed_cents(world)
        if now != billed:
            billed, changed = now, time.monotonic()
    return [] if billed == owed else [f"{owed} cents are owed, {billed} were billed"]


async def _billed_cents(world: World) -> Decimal:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {LAGO_KEY}"}, trust_env=False) as http:
        stats = (await http.get(world.url("sandbox") + "/__stats")).json()
    return Decimal(stats["subscriptions"].get("sub-" + ORGS[0], {}).get("billed_cents", "0"))


def main() -> int:
    """0 when each job was billed once under every configuration."""
    install()
    problems: list[str] = []
    for name, plain_ids, keep_response in (
        ("plain ids", True, False),
        ("ids that change with each poll", False, True),
        ("ids that change, responses left out", False, False),
    ):
        folder = Path(tempfile.mkdtemp(prefix="meterbridge-trial-"))
        print(f"{name}: logs in {folder}", flush=True)
        wrong = asyncio.run(trial(folder, plain_ids=plain_ids, keep_response=keep_response))
        problems += [f"{name}: {problem}" for problem in wrong]
    print("\n".join(problems))
    jobs = f"batch polled {BATCH_POLLS} times, response {RESPONSE_POLLS}, video {VIDEO_POLLS}"
    print(f"MISMATCH {jobs}" if problems else f"BILLED ONCE {jobs}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
