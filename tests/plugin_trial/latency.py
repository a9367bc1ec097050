"""The latency that the plugin adds: the same calls, in turn, through a proxy without a callback and one with the plugin."""

import asyncio
import random
import statistics
from pathlib import Path

import httpx

from tests.plugin_trial.clients import Clients
from tests.plugin_trial.judge import SECRET, Notes, judging
from tests.plugin_trial.kills import served_provider
from tests.plugin_trial.proxies import KEY, build_wheel, config, launcher, started
from tests.support.ports import free_port

BOUND_MS = 2.0
_WARM_UP = 100
_PAUSE_S = 0.01
_PARTS = 5
_KINDS = ("chat", "chat, streamed")


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


async def measured(folder: Path, calls: int, answer_after: str) -> float:
    """Print p50 and p99 of each kind of call through each proxy; returns the largest addition to the p99 in
    milliseconds.
    """
    notes = Notes(away=0.0)
    wheel = build_wheel(folder)
    runner, provider = await served_provider()
    async with judging(notes) as url:
        environ = {
            "METERBRIDGE_URL": url,
            "METERBRIDGE_SECRET": SECRET,
            "METERBRIDGE_RING_PATH": str(folder / "ring"),
            "METERBRIDGE_ANSWER_AFTER": answer_after,
        }
        forks = launcher(folder, wheel, environ)
        proxies = {
            name: started(forks, folder / name, config(provider, callbacks), free_port())
            for name, callbacks in (("plain", []), ("plugin", ["meterbridge_litellm.handler"]))
        }
        for proxy in proxies.values():
            await proxy.up()
        times = await _times({name: proxy.url for name, proxy in proxies.items()}, calls)
        for proxy in proxies.values():
            await proxy.stop()
        forks.close()
    await runner.cleanup()
    return max(_print_quantiles(times, kind) for kind in _KINDS)


def _print_quantiles(times: dict[tuple[str, str], list[float]], kind: str) -> float:
    """Print the quantiles of a kind of call; by how many milliseconds the plugin's p99 is higher.

    That is the median over parts of the run, so a moment in which the machine does something else decides nothing.
    """
    plain, plugin = ([took * 1000 for took in times[name, kind]] for name in ("plain", "plugin"))
    for name, values in (("no callback", plain), ("plugin", plugin)):
        print(f"{kind:15} {name:12} p50 {statistics.median(values):6.2f}  p99 {quantile(values, 0.99):6.2f} ms")
    size = len(plain) // _PARTS
    parts = [slice(start, start + size) for start in range(0, size * _PARTS, size)]
    added = {
        share: statistics.median(quantile(plugin[part], share) - quantile(plain[part], share) for part in parts)
        for share in (0.5, 0.99)
    }
    print(f"{kind:15} added        p50 {added[0.5]:6.2f}  p99 {added[0.99]:6.2f} ms, median of {_PARTS} parts")
    return added[0.99]


async def _times(urls: dict[str, str], calls: int) -> dict[tuple[str, str], list[float]]:
    """Seconds of each call; the order of proxies and kinds is random, so that other work of the machine affects all of
    them.
    """
    clients, chance = Clients(), random.Random(1)
    times: dict[tuple[str, str], list[float]] = {(name, kind): [] for name in urls for kind in _KINDS}
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(headers=headers, timeout=30, trust_env=False) as client:
        for name, kind in list(times) * _WARM_UP:
            await clients.call(client, urls[name], kind)
        todo = list(times) * (calls // len(_KINDS))
        chance.shuffle(todo)
        for name, kind in todo:
            times[name, kind].append(await clients.call(client, urls[name], kind))
            await asyncio.sleep(_PAUSE_S)  # LiteLLM logs the call before in this time
    assert not clients.cut
    assert not clients.refused
    return times
