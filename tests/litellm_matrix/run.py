"""One run: a version's proxies, all scenarios, and the result of each."""

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

import tests.litellm_matrix.scenarios_chat
import tests.litellm_matrix.scenarios_delivery
import tests.litellm_matrix.scenarios_faults
import tests.litellm_matrix.scenarios_kinds  # noqa: F401  # each registers its scenarios
from tests.litellm_matrix.entrance import Entrance, entrance
from tests.litellm_matrix.judge import billed_cents, plain, rows_of
from tests.litellm_matrix.launched import PLUGIN, PROXIES, SECRET, TOKEN, configuration, files_of
from tests.litellm_matrix.provider import Provider
from tests.litellm_matrix.scenario import SCENARIOS, Ask, Scenario, key_of
from tests.plugin_trial.endpoints import served
from tests.proxy.forked import ForkedProxy, Launcher
from tests.support.ports import free_port

#: Scenarios at the same time, on a machine of two cores.
_AT_ONCE = 6
#: LiteLLM's default is 5. With 3 a run is shorter, and a killed proxy still has calls in its queue.
FLUSH_S = 3
#: Several flushes, and what a busy machine adds.
QUIET_S = 45.0
#: For a machine with much else to do.
_SCENARIO_LIMIT_S, _ANSWER_LIMIT_S = 900.0, 300.0
#: Seconds until the slow endpoint answers.
_SLOW_S = 0.5
#: Endpoints at which the meaning of calls is judged, not whether they arrive.
_SUPPLEMENTED = ("main", "ndjson", "single")


@dataclass
class Outcome:
    """The results of a run.

    Fields:
        results: by scenario.
        elements: what was posted, by endpoint, in order.
        received_us: when the run ended, microseconds since 1970 UTC.
        lost: scenarios of calls that LiteLLM logged and did not post; they are judged as if it had.
    """

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    elements: dict[str, list[Any]] = field(default_factory=dict)
    received_us: int = 0
    lost: list[str] = field(default_factory=list)


@dataclass
class Run:
    """The running proxies."""

    folder: Path
    launcher: Launcher
    at: Entrance
    provider_url: str
    proxies: dict[str, ForkedProxy] = field(default_factory=dict)

    async def start(self, names: Iterable[str]) -> None:
        """Start proxies, all at once."""
        for name in names:
            files = files_of(configuration(name, self.provider_url, self.at.url))
            started = asyncio.to_thread(self.launcher.started, self.folder / name, files, free_port())
            self.proxies[name] = await started
        await asyncio.gather(*(proxy.up() for proxy in self.proxies.values()))

    def arrived_at(self, endpoint: str) -> int:
        """How many calls have arrived there."""
        return len(self.at.elements(endpoint))

    async def arrived(self, endpoint: str, calls: int) -> None:
        """Wait until that many calls have arrived there; five minutes at most."""
        for _ in range(15_000):
            if self.arrived_at(endpoint) >= calls:
                return
            await asyncio.sleep(0.02)

    async def end(self, proxy: str, *, kill: bool) -> None:
        """End a proxy."""
        one = self.proxies[proxy]
        if kill:
            one.kill()
        else:
            await one.stop()

    async def end_all(self) -> None:
        """SIGKILL to all."""
        for proxy in self.proxies.values():
            proxy.kill()
        self.launcher.close()

    async def supplement(self) -> list[str]:
        """Post what LiteLLM logged at the main proxy and never posted, so that its meaning is judged as well.

        Returns:
            The scenario of each such call. Before 1.108 a flush loses calls that end meanwhile.
        """
        tap = self.folder / "main" / "tap.jsonl"
        noted = [json.loads(line) for line in tap.read_text().splitlines()] if tap.exists() else []
        found = []
        for endpoint in _SUPPLEMENTED:
            arrived = {_mark(element) for element in self.at.elements(endpoint)}
            lost = [each for each in noted if each and _mark(each) not in arrived]
            if lost:
                headers = {"Authorization": "Bearer " + TOKEN}
                await self.at.post(endpoint, json.dumps(lost).encode(), headers)
            names = [str((each.get("metadata") or {}).get("user_api_key_alias")) for each in lost]
            found += [name for name in names if name in SCENARIOS and SCENARIOS[name].endpoint == endpoint]
        return found


def _mark(element: Any) -> tuple[str, ...]:
    return tuple(str((element or {}).get(name)) for name in ("id", "startTime", "endTime", "status"))


async def _tried(scenario: Scenario, run: Run) -> list[str]:
    """Run one scenario; returns what its client got."""
    proxy = run.proxies[scenario.proxy]
    headers = {"Authorization": "Bearer " + key_of(scenario.name)}
    async with httpx.AsyncClient(
        base_url=proxy.url, headers=headers, timeout=_ANSWER_LIMIT_S, trust_env=False
    ) as client:
        ask = Ask(scenario, client, run)
        try:
            async with asyncio.timeout(_SCENARIO_LIMIT_S):
                await scenario.run(ask)
        except (httpx.HTTPError, TimeoutError, KeyError) as error:
            ask.seen.append(f"no answer: {type(error).__name__}")
        return ask.seen


async def run_scenarios(
    folder: Path,
    python: Path,
    scenarios: Sequence[str],
    plant: str = "",
    flush_s: int = FLUSH_S,
    quiet_s: float = QUIET_S,
    wanted: int = 0,
) -> Outcome:
    """Run scenarios on one version.

    Args:
        folder: empty, for logs and the plugin's ring.
        python: of the environment with LiteLLM.
        plant: a change of what LiteLLM reports (planted.py::PLANTS); `""` = none.
        flush_s: seconds between two posts of LiteLLM's; a run of more than a few scenarios needs the default.
        quiet_s: how long nothing may arrive before all is said to have arrived.
        wanted: how many calls must have arrived first.
    """
    provider, outcome = Provider({one.name: one.script for one in SCENARIOS.values()}), Outcome()
    endpoints = dict.fromkeys(endpoint for routes in PROXIES.values() for endpoint in routes)
    async with AsyncExitStack() as stack:
        at = await stack.enter_async_context(entrance(endpoints))
        at.refuse["outage"] = (b'"outage"', 2)
        at.slow["slow"] = _SLOW_S
        base = await stack.enter_async_context(served(provider.app()))
        launcher = await asyncio.to_thread(Launcher, folder, python, _environ(folder, at.url, base, plant, flush_s))
        run = Run(folder, launcher, at, base)
        stack.push_async_callback(run.end_all)
        proxies = {SCENARIOS[each].proxy for each in scenarios}
        await run.start(name for name in PROXIES if name in proxies)
        seen = await _all(run, [name for name in scenarios if not SCENARIOS[name].last])
        await _quiet(at, quiet_s, wanted)
        outcome.lost = await run.supplement()
        last = [name for name in scenarios if SCENARIOS[name].last]
        if last:
            seen |= await _all(run, last)
            await _quiet(at, quiet_s)
        outcome.received_us = time.time_ns() // 1000
        outcome.elements = {endpoint: at.elements(endpoint) for endpoint in endpoints}
        kept = {"seen": seen, "elements": outcome.elements, "lost": outcome.lost, "at": outcome.received_us}
        (folder / "arrived.json").write_text(json.dumps(kept))
    rows = {endpoint: rows_of(store.records) for endpoint, store in at.stores.items()}
    for name in scenarios:
        one = SCENARIOS[name]
        outcome.results[name] = result_of(one, seen[name], provider, rows[one.endpoint].get(name, []))
    return outcome


def _environ(folder: Path, usage: str, provider: str, plant: str, flush_s: int) -> dict[str, str]:
    paths = {
        "OPENAI": "/s/batch/v1",
        "ANTHROPIC": "/s/pass-anthropic",
        "GEMINI": "/s/pass-gemini",
        "COHERE": "/s/rerank",
    }
    return {
        "PYTHONPATH": str(PLUGIN),
        "DEFAULT_FLUSH_INTERVAL_SECONDS": str(flush_s),
        "METERBRIDGE_URL": usage + "/plugin",
        "METERBRIDGE_SECRET": SECRET,
        "METERBRIDGE_RING_PATH": str(folder / "ring"),
        "MATRIX_PLANT": plant,
        **{f"{name}_API_BASE": provider + path for name, path in paths.items()},
        **{f"{name}_API_KEY": "sk-provider" for name in paths},
    }


async def _all(run: Run, scenarios: Sequence[str]) -> dict[str, list[str]]:
    gate, seen = asyncio.Semaphore(_AT_ONCE), dict[str, list[str]]()

    async def one(name: str) -> None:
        async with gate:
            seen[name] = await _tried(SCENARIOS[name], run)

    async with asyncio.TaskGroup() as group:
        for name in scenarios:
            group.create_task(one(name))
    return seen


async def _quiet(at: Entrance, quiet_s: float, wanted: int = 0) -> None:
    """Wait until this number of calls has arrived at the main endpoint, at most five minutes; then until nothing has
    arrived for this time.
    """
    for _ in range(3000):
        if len(at.elements("main")) >= wanted:
            break
        await asyncio.sleep(0.1)
    begun = time.monotonic()
    while time.monotonic() - max(at.changed_s, begun) < quiet_s:
        await asyncio.sleep(0.2)


def result_of(
    scenario: Scenario, seen: Sequence[str], provider: Provider, rows: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The result of a scenario in its recorded form."""
    accounts = [provider.accounts[name] for name in {scenario.name, *(model.at for model in scenario.models)} if name]
    charged = sum((account.dollars for account in accounts), Decimal(0)) * 100
    owed = charged if scenario.owed is None else scenario.owed * 100
    return {
        "client": list(seen),
        "provider_asked": sum(len(account.asked) for account in accounts),
        "charged": plain(charged),
        "owed": plain(owed),
        "billed": plain(billed_cents(rows)),
        "calls": [dict(row) for row in rows],
    }
