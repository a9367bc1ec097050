"""Injects the planned faults, each at its time, and records the faults that really happened."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp

from tests.faults.plan import LAGO, Fault, Kind
from tests.faults.procs import Death, Process
from tests.support.eventually import PATIENCE
from tests.support.kafka import Kafka

#: The rules with which the sandbox fails; it counts how often each rule fires.
_RULES: dict[Kind, Callable[[float], dict[str, Any]]] = {
    Kind.LAGO_429: lambda s: {"kind": "status", "status": 429, "headers": {"X-RateLimit-Reset": f"{s:.0f}"}},
    Kind.LAGO_500: lambda s: {"kind": "status", "status": 500},
    Kind.LAGO_DROP: lambda s: {"kind": "drop"},
    Kind.LAGO_TIMEOUT: lambda s: {"kind": "timeout_after_accept", "seconds": s},
}

#: The minimum time between two faults of a broker, after its restart.
_BROKER_LIVES_S = 6.0


class Adversary:
    """Faults against processes, the broker and the sandbox.

    Fields:
        done: faults whose target was alive, in order; the sandbox counts Lago's faults.
        stops: how each SIGTERM ended.
        problems: errors that no fault explains, e.g. a SIGTERM that took too long.
    """

    def __init__(self, processes: dict[str, Process], broker: Kafka, sandbox_url: str) -> None:
        self.done: list[Fault] = []
        self.stops: list[Death] = []
        self.problems: list[str] = []
        self._processes = processes
        self._broker = broker
        self._broker_busy = asyncio.Lock()
        self._sandbox = sandbox_url

    async def run(self, plan: Sequence[Fault], now_s: Callable[[], float]) -> None:
        """Returns when every fault has been injected and repaired, except Lago's, which end with their first post."""

        async def at_its_time(fault: Fault) -> None:
            await asyncio.sleep(max(0.0, fault.at_s - now_s()))
            await self._do(fault)

        async with asyncio.TaskGroup() as faults:
            for fault in plan:
                faults.create_task(at_its_time(fault))

    async def fired(self) -> dict[str, int]:
        """Return how often each of Lago's faults has met a post."""
        counts: Counter[str] = Counter()
        for rule in await self._rules():
            counts[_named(rule)] += rule["fired"]
        return dict(counts)

    async def lago_heals(self, limit_s: float) -> None:
        """Return when every fault of Lago's has met its post, after `limit_s` at the latest.

        While the broker is down nothing is posted, so these faults accumulate and happen one after the other.
        """
        deadline = time.monotonic() + limit_s * PATIENCE
        while time.monotonic() < deadline and not all(rule["ended"] for rule in await self._rules()):
            await asyncio.sleep(0.5)

    async def _rules(self) -> list[dict[str, Any]]:
        async with aiohttp.ClientSession() as session, session.get(self._sandbox + "/__faults") as response:
            rules: list[dict[str, Any]] = (await response.json())["rules"]
        return rules

    async def _do(self, fault: Fault) -> None:
        match fault.kind:
            case Kind.KILL:
                await self._kill(fault)
            case Kind.FREEZE:
                await self._freeze(fault)
            case Kind.ROLL:
                for name in fault.touches:
                    await self._roll(fault, self._processes[name])
            case Kind.JOIN:
                await self._join(fault)
            case Kind.BROKER:
                await self._kill_broker(fault)
            case _:
                await self._arm(fault)
        if fault.kind not in LAGO:
            self.done.append(fault)

    async def _kill(self, fault: Fault) -> None:
        process = self._processes[fault.target]
        async with process.busy:
            process.start()
            await process.kill()
            await asyncio.sleep(fault.lasts_s)
            process.start()

    async def _kill_broker(self, fault: Fault) -> None:
        """On a slow machine the broker may still be starting when the next kill is due: it gets time to run in between."""
        async with self._broker_busy:
            await asyncio.to_thread(self._broker.kill)
            await asyncio.sleep(fault.lasts_s)
            await asyncio.to_thread(self._broker.restart)
            await asyncio.sleep(_BROKER_LIVES_S)

    async def _freeze(self, fault: Fault) -> None:
        process = self._processes[fault.target]
        async with process.busy:
            process.start()
            await process.freeze(fault.lasts_s)

    async def _roll(self, fault: Fault, process: Process) -> None:
        async with process.busy:
            await process.up()
            await self._stop(process)
            await asyncio.sleep(fault.lasts_s)
            process.start()

    async def _join(self, fault: Fault) -> None:
        members = [self._processes[name] for name in fault.touches]
        for process in members:
            process.start()
        await asyncio.gather(*(process.up() for process in members))
        await asyncio.sleep(fault.lasts_s)
        for process in members:
            async with process.busy:
                await process.up()
                await self._stop(process)

    async def _stop(self, process: Process) -> None:
        death = await process.terminate()
        if death is None:
            return
        self.stops.append(death)
        if death.code != 0:
            self.problems.append(f"SIGTERM: {death}")

    async def _arm(self, fault: Fault) -> None:
        order = {"rules": [{**_RULES[fault.kind](fault.lasts_s), "count": 1}]}
        url = self._sandbox + "/__faults"
        async with aiohttp.ClientSession() as session, session.post(url, json=order) as response:
            response.raise_for_status()


def _named(rule: dict[str, Any]) -> str:
    kinds = {"drop": Kind.LAGO_DROP, "timeout_after_accept": Kind.LAGO_TIMEOUT}
    status = {429: Kind.LAGO_429, 500: Kind.LAGO_500}
    kind = kinds[rule["kind"]] if rule["kind"] in kinds else status[rule.get("status", 500)]
    return kind.value
