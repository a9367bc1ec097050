"""`make alarms-trial`: what the alarms are for is broken, one thing after the other; the right alarm fires, and no other.

A real Kafka, Postgres and Prometheus on loopback, the product's processes, and the stand-in for Lago. Times in the rules are
shortened (tests/alarms/shortened.py). Names of alarms as arguments try these alone. Every query of the dashboards is asked, too.
The last line begins with `RANG` or `WRONG`; the exit code says the same.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

from connectors.postgres.migrate import migrate
from tests.alarms.breakage import FAULTS, Scene, command
from tests.alarms.monitor import Monitor, prometheus
from tests.alarms.panels import queries
from tests.alarms.traffic import traffic
from tests.faults.world import CANARY, COMMANDS, running_world
from tests.support.database import fresh_database
from tests.support.kafka import MavenKafka
from tests.support.postgres import LocalPostgres
from tests.unit.telemetry.test_watched_limits import certificate_from_now

#: One process of each role.
_PROCESSES = ("sandbox", "ingress", "api", "meter-0", "sink-0", "retry-0")
#: Seconds: until an alarm fires; how long another one may come after it; until all is quiet again.
_FIRES_S, _OTHERS_S, _QUIET_S = 150.0, 8.0, 180.0


async def tried(folder: Path, wanted: Sequence[str]) -> list[str]:
    """Break one thing after the other, print a line for each, and return what was wrong."""
    wrong: list[str] = []
    async with scene_in(folder) as scene:
        monitor = scene.monitor
        if not await monitor.until_quiet(_QUIET_S):
            wrong.append(f"before any fault: {', '.join(sorted(await monitor.firing()))}")
        wrong += await asked(monitor)
        print("| alarm | fired after | others | while it was mended |\n|---|---|---|---|", flush=True)
        for name in wanted:
            wrong += await broken(scene, name)
        wrong += [f"{name}: its text has an error" for name in sorted(monitor.damaged)]
    return wrong


async def broken(scene: Scene, name: str) -> list[str]:
    """Break what an alarm is for, and mend it."""
    monitor, wrong = scene.monitor, []
    if not await monitor.until_quiet(_QUIET_S):
        wrong.append(f"before {name}: {', '.join(sorted(await monitor.firing()))}")
    monitor.forget()
    began = time.monotonic()
    async with FAULTS[name](scene):
        fired = await monitor.until(lambda now: name in now, _FIRES_S) or name in monitor.seen
        after_s = time.monotonic() - began
        await monitor.look(_OTHERS_S)
        others = sorted(monitor.seen.keys() - {name})
        monitor.forget()
    await monitor.until_quiet(_QUIET_S)
    later = sorted(monitor.seen.keys() - {name})
    told = f"{after_s:.0f} s" if fired else "**never**"
    print(f"| {name} | {told} | {', '.join(others) or '-'} | {', '.join(later) or '-'} |", flush=True)
    if not fired or others:
        wrong.append(f"{name}: {told}, others: {others}")
    return wrong


async def asked(monitor: Monitor) -> list[str]:
    """Ask every query of the dashboards, and return those that have no answer where they must."""
    silent, count = [], 0
    for where, query, may_be_empty in queries("30s"):
        count += 1
        if not await monitor.query(query) and not may_be_empty:
            silent.append(f"{where}: no series")
    print(f"{count} queries of the dashboards were asked, {len(silent)} of them without an answer", flush=True)
    return silent


@contextlib.asynccontextmanager
async def scene_in(folder: Path) -> AsyncIterator[Scene]:
    """Everything up, and a minute's usage billed."""
    async with contextlib.AsyncExitStack() as stack:
        kafka = await asyncio.to_thread(MavenKafka)
        stack.callback(kafka.stop)
        postgres = await asyncio.to_thread(LocalPostgres)
        stack.callback(postgres.stop)
        database = await stack.enter_async_context(fresh_database(postgres.url))
        await migrate(database)
        certificate = folder / "ca.pem"
        certificate.write_bytes(certificate_from_now(timedelta(days=400)))
        common = {
            "DATABASE_URL": database,
            "KAFKA_SSL_CAFILE": str(certificate),
            "WINDOW_SECONDS": "1",
            "GRACE_SECONDS": "1",
            "BATCH_SIZE": "10",
            "WORKER_CONCURRENCY": "1",
            "CANARY_INTERVAL": "2",
            "CANARY_BILLED_WITHIN": "15",
        }
        spool = {"SPOOL_PATH": str(folder / "spool.db"), "SPOOL_MAX_BYTES": str(1 << 20)}
        commands = {name: COMMANDS[name] for name in _PROCESSES} | CANARY
        world = await stack.enter_async_context(
            running_world(os.environ, folder, broker=kafka, ingress=spool, common=common, commands=commands)
        )
        await command(world, "canary", "setup")
        world.processes["canary"].start()
        await world.processes["canary"].up()
        ports = [port for name, port in world.ports.items() if name.startswith("metrics-") and "sandbox" not in name]
        monitor = await stack.enter_async_context(prometheus(folder, ports))
        sending = await stack.enter_async_context(traffic(world))
        await asyncio.sleep(45)
        yield Scene(world, monitor, sending, kafka, postgres, certificate)


def main() -> int:
    """0 when each alarm fired alone."""
    wanted = sys.argv[1:] or list(FAULTS)
    folder = Path(tempfile.mkdtemp(prefix="meterbridge-alarms-"))
    print(f"logs in {folder}", flush=True)
    wrong = asyncio.run(tried(folder, wanted))
    print("\n".join(wrong))
    print(f"{'WRONG' if wrong else 'RANG'} {len(wanted)} alarms")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
