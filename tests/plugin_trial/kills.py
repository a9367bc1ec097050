"""`kill -9` of proxies under load; afterwards each call that was answered to a client is billed once."""

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from tests.plugin_trial.clients import Clients
from tests.plugin_trial.judge import SECRET, Notes, judge, judging
from tests.plugin_trial.proxies import build_wheel, config, launcher, started
from tests.proxy.forked import ForkedProxy
from tests.proxy.provider import Provider
from tests.support.ports import free_port

_CLIENTS = 6
_DRAIN_LIMIT_S = 60.0
_FIRST_ANSWER_LIMIT_S = 60.0


async def served_provider() -> tuple[web.AppRunner, str]:
    """A provider on loopback, and its base URL."""
    runner = web.AppRunner(Provider().app(), access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner, f"http://127.0.0.1:{port}/v1"


async def killed(folder: Path, kills: int, seed: int, answer_after: str) -> list[str]:
    """Run the trial; a line for each error.

    The next proxy starts while the one before is under load, so two processes share the ring, and the ring of a killed one is
    posted by the next.
    """
    chance, notes, clients = random.Random(seed), Notes(), Clients()
    wheel, ring = build_wheel(folder), folder / "ring"
    runner, provider = await served_provider()
    async with judging(notes) as url:
        environ = {
            "METERBRIDGE_URL": url,
            "METERBRIDGE_SECRET": SECRET,
            "METERBRIDGE_RING_PATH": str(ring),
            "METERBRIDGE_ANSWER_AFTER": answer_after,
        }

        def proxy(number: int) -> ForkedProxy:
            text = config(provider, ["meterbridge_litellm.handler"])
            return started(forks, folder / str(number % 2), text, free_port())

        forks = launcher(folder, wheel, environ)
        current = proxy(0)
        await current.up()
        for number in range(1, kills + 1):
            following = proxy(number)
            stop, load_s, before = asyncio.Event(), chance.uniform(0.1, 3.0), len(clients.answered)
            load = asyncio.create_task(clients.load(current.url, _CLIENTS, stop))
            await _until(lambda known=before: len(clients.answered) > known)  # type: ignore[misc]
            await asyncio.sleep(load_s)
            current.kill()
            stop.set()
            await load
            new = len(clients.answered) - before
            print(f"kill {number}: {load_s:.1f} s after the first answer, {new} calls answered", flush=True)
            current = following
            await current.up()
        deadline = time.monotonic() + _DRAIN_LIMIT_S
        while time.monotonic() < deadline:
            wrong = judge(notes).problems(clients.answered)
            if not wrong and not any(ring.glob("*.seg")):
                break
            await asyncio.sleep(0.5)
        await current.stop()
        forks.close()
        left = [path.name for path in ring.iterdir()]
    await runner.cleanup()
    verdict = judge(notes)
    kinds = {kind: list(clients.answered.values()).count(kind) for kind in sorted({*clients.answered.values()})}
    print(f"{len(clients.answered)} calls answered, {kinds}; {clients.cut} cut; {len(clients.refused)} refused")
    print(f"{len(notes.records)} records, {verdict.copies} of them copies that are known, {verdict.rejected} rejected")
    if clients.refused:
        wrong.append(f"answers {sorted({*clients.refused})}")
    if any(name.endswith(".seg") for name in left):
        wrong.append(f"left in the ring: {left}")
    return wrong


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _FIRST_ANSWER_LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the proxy answers no call")
        await asyncio.sleep(0.02)
