"""`python -m tests.faults.scale_trial [--rate R] [--seconds S] [--seed N]`: workers that scale and roll while brokers go down.

Three brokers hold three copies of everything. Under load, one worker becomes three. Then each broker is killed once (kill -9), also the
leader of a partition and the controller, a worker is replaced while it is down, and it comes back. Two of the three workers leave. Then
every call and every cent that was sent is compared with what the sandbox of Lago was billed, and by `meterbridge reconcile --lago`.

The last line is `EXACT ...` or begins with `MISMATCH`; the exit code says the same. The load stops by itself.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random, SystemRandom

from tests.faults.calls import CUSTOMERS
from tests.faults.load import Sender
from tests.faults.procs import Process
from tests.faults.recording import Recorder
from tests.faults.rolling_upgrade import migrate, reconciled
from tests.faults.run import settle
from tests.faults.world import MASTER_KEY, ORGS, OURS, SECRET, TOKEN, World, mapped_late, running_world
from tests.support.database import fresh_database
from tests.support.kafka import KafkaCluster
from tests.support.kafka.cluster import REPLICATED
from tests.support.postgres import start_postgres

#: A worker is a supervisor with a process for each role; the second and the third join later.
WORKERS = tuple(f"worker-{n}" for n in range(3))
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "sandbox": ("lago-sandbox",),
    "ingress": ("serve", "--only", "webhooks"),
    "api": ("serve", "--only", "api"),
    **dict.fromkeys(WORKERS, ("worker", "--only", "meter,sink,retry")),
}
_UP_LIMIT_S = 120.0


@dataclass(slots=True)
class Scaled:
    """The result of a run; `problems` is empty if it was exact.

    Fields:
        sent_s: how long calls were sent.
        by_itself: unexpected ends of processes.
    """

    seed: int
    rate: int
    problems: list[str] = field(default_factory=list)
    calls: int = 0
    metered: int = 0
    usd: str = "0"
    sent_s: float = 0.0
    drained_s: float = 0.0
    rolled: int = 0
    by_itself: int = 0

    def line(self) -> str:
        """Return the verdict on one line."""
        rate = self.calls / self.sent_s if self.sent_s else 0.0
        return (
            f"{'MISMATCH' if self.problems else 'EXACT'} calls={self.calls} metered={self.metered} usd={self.usd} "
            f"calls_per_s={rate:.0f} sent_s={self.sent_s:.0f} drained_s={self.drained_s:.0f} rolled={self.rolled} "
            f"ended_by_themselves={self.by_itself} seed={self.seed}"
        )


async def scaled(
    cluster: KafkaCluster,
    folder: Path,
    database: str,
    *,
    seed: int,
    rate: int,
    pause_s: float,
    drain_limit_s: float,
    common: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> Scaled:
    """Do one run and return its result.

    Args:
        database: the URL of a database; its tables are made if there are none.
        rate: calls a second.
        pause_s: seconds of load between two changes.
        drain_limit_s: from the last call to the last cent billed, and to the last row written, at most.
        common: further variables of every process.
    """
    report, random = Scaled(seed, rate), Random(f"scale/{seed}")
    await asyncio.to_thread(migrate, OURS, database)
    variables = {"DATABASE_URL": database, **REPLICATED, **(common or {})}
    # The processes of one supervisor would count up from a metrics port, and take those of others.
    async with running_world(
        {}, folder, broker=cluster, common=variables, commands=COMMANDS, joins_later=WORKERS[1:],
        each=lambda name: {"METRICS_PORT": "0"} if name in WORKERS else {},
    ) as world:  # fmt: skip
        url = world.url("ingress") + "/webhook/litellm/usage"
        sender = Sender(url, token=TOKEN, secret=SECRET, seed=seed, rate=rate)
        recorder, done = Recorder(world.url("api"), MASTER_KEY, sender.load.owed, ORGS, seed), asyncio.Event()

        async def change() -> None:
            try:
                await _change(world, cluster, random, pause_s, report, say)
            finally:
                done.set()

        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(sender.run(pause_s, until=done))
            group.create_task(recorder.run(pause_s, done))
            group.create_task(_map_the_rest(world, pause_s))
            group.create_task(change())
        report.sent_s = time.monotonic() - begun
        owed = sender.load.owed
        report.calls, report.metered, report.usd = len(owed.calls), len(owed.metered), f"{owed.dollars():f}"
        say(f"{report.calls} calls sent in {report.sent_s:.0f} s, answers {dict(sender.load.answers)}")
        report.problems += [f"refused: {refused}" for refused in sender.load.refused]
        report.problems += await settle(world, sender.load, say, drain_limit_s)
        report.drained_s = time.monotonic() - begun - report.sent_s
        environ = world.environ("reconcile")
        report.problems += await asyncio.to_thread(reconciled, environ, drain_limit_s)
        for process in world.processes.values():
            ends = [death for death in process.deaths if death.cause == "by itself"]
            report.by_itself += len(ends)
            # A process that could not continue without the broker may have ended with an error, and was restarted.
            report.problems += [f"{death}" for death in ends if death.code == 0]
            if "partition_halted" in process.log.read_text(errors="replace"):
                report.problems.append(f"{process.name} halted a partition")
    return report


async def _change(
    world: World, cluster: KafkaCluster, random: Random, pause_s: float, report: Scaled, say: Callable[[str], None]
) -> None:
    """Scale from 1 to 3 workers; kill each broker, restart a worker and then the broker; and scale to 1 worker. `pause_s`
    between any two.
    """
    first, *others = (world.processes[name] for name in WORKERS)
    nodes = random.sample(cluster.nodes, len(cluster.nodes))

    def progress(what: str) -> None:
        say(f"{world.clock_s():6.1f} s  {what}")

    await asyncio.sleep(pause_s)
    for process in others:
        process.start()
    await asyncio.gather(*(process.up(_UP_LIMIT_S) for process in others))
    progress("three workers")
    for node, process in zip(nodes, (first, *others), strict=True):
        await asyncio.sleep(pause_s)
        await asyncio.to_thread(node.kill)
        progress(f"kill -9 of the broker {node.bootstrap}")
        await asyncio.sleep(pause_s)
        async with process.busy:
            report.problems += await _stopped(process)
            process.start()
        await process.up(_UP_LIMIT_S)
        report.rolled += 1
        progress(f"{process.name} replaced")
        await asyncio.to_thread(node.restart)
        await asyncio.to_thread(cluster.whole)
        progress("the broker is back")
    await asyncio.sleep(pause_s)
    for process in others:
        async with process.busy:
            report.problems += await _stopped(process)
    progress("one worker")
    await asyncio.sleep(pause_s)


async def _stopped(process: Process) -> list[str]:
    """Send SIGTERM like an orchestrator; return the errors in how the process ended."""
    death = await process.terminate()
    return [f"SIGTERM: {death}"] if death is not None and death.code != 0 else []


async def _map_the_rest(world: World, pause_s: float) -> None:
    """Map the customers whose first calls came before their mapping."""
    await asyncio.sleep(pause_s)
    for customer in filter(mapped_late, CUSTOMERS):
        await world.map(customer)


def main() -> int:
    """Return 0 when every cent was billed once."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    arguments.add_argument("--rate", type=int, default=1000, help="calls a second")
    arguments.add_argument(
        "--pause", type=float, default=15.0, help="seconds of load between two changes; there are nine"
    )
    arguments.add_argument("--drain", type=float, default=300.0, help="seconds that everything may take to be billed")
    arguments.add_argument("--seed", type=int, default=SystemRandom().randrange(1, 1_000_000))
    chosen = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="meterbridge-scale-"))
    print(f"seed {chosen.seed}, {chosen.rate} calls/s; logs in {folder}", flush=True)
    server, cluster = start_postgres({}), KafkaCluster()

    async def once() -> Scaled:
        async with fresh_database(server.url) as url:
            return await scaled(
                cluster,
                folder,
                url,
                seed=chosen.seed,
                rate=chosen.rate,
                pause_s=chosen.pause,
                drain_limit_s=chosen.drain,
            )

    try:
        report = asyncio.run(once())
    finally:
        cluster.stop()
        server.stop()
    print("\n".join([*report.problems, report.line()]))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
