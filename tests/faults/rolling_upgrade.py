"""`python -m tests.faults.rolling_upgrade --from FOLDER`: processes of another version are replaced by ours under load.

FOLDER is a work tree of another commit in which `make venv` was run. Its processes bill a load. One after the other is
stopped and restarted with this version, in the order of docs/upgrade.md; for a while both versions share the partitions
of each role. Then one process of each role goes back a version and forward again. Every cent is counted at the sandbox,
and `meterbridge reconcile --lago` has to find no fault. The last line is `EXACT calls=.. usd=..` or begins with
`MISMATCH`; the exit code says the same.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from tests.faults.load import Sender
from tests.faults.procs import Process
from tests.faults.recording import Recorder
from tests.faults.run import map_late, settle
from tests.faults.world import COMMANDS, MASTER_KEY, ORGS, OURS, SECRET, TOKEN, World, running_world
from tests.support.checkout import Checkout
from tests.support.database import fresh_database
from tests.support.eventually import eventually
from tests.support.postgres import start_postgres

#: Two processes for each role of the workers; who reads is replaced before who writes.
RETRY = {f"retry-{n}": ("worker", "--only", "retry") for n in range(2)}
PROJECT = {"project-0": ("worker", "--only", "project")}
RUNNING = {name: words for name, words in COMMANDS.items() if not name.endswith("-2")} | RETRY | PROJECT
ORDER = ("project-0", "retry-0", "retry-1", "sink-0", "sink-1", "meter-0", "meter-1", "api", "ingress")
#: These are downgraded once and upgraded again.
BACK = ("project-0", "meter-0", "sink-0", "retry-0", "api", "ingress")
#: From the last cent billed to the last row written.
_ROWS_LIMIT_S = 30.0
_UP_LIMIT_S = 60.0
#: The sandbox replaces Lago, so it is not upgraded.
_NOT_UPGRADED = "sandbox"
_SEEN = (
    "partition_halted",
    "newer_version",
    "unknown_version",
    "unreadable",
    "Traceback",
    "lane_open_failed",
    "partition_task_open_failed",
    "worker_ended",
)


async def upgraded(old: Checkout, folder: Path, database: str, *, rate: int, pause_s: float) -> tuple[str, list[str]]:
    """Do one run; return its last line and the errors. `database`: the address of a Postgres server."""
    begun, done = time.monotonic(), asyncio.Event()

    def program(name: str) -> Sequence[str]:
        return OURS if name == _NOT_UPGRADED else old.program

    async with fresh_database(database) as url, AsyncExitStack() as stack:
        await asyncio.to_thread(migrate, old.program, url)
        common = {"DATABASE_URL": url}
        running = running_world(os.environ, folder, commands=RUNNING, program=program, common=common)
        world = await stack.enter_async_context(running)
        sender = Sender(world.url("ingress") + "/webhook/litellm/usage", token=TOKEN, secret=SECRET, seed=1, rate=rate)
        recorder = Recorder(world.url("api"), MASTER_KEY, sender.load.owed, ORGS, 1)
        problems: list[str] = []

        async def replace() -> None:
            try:
                await asyncio.sleep(pause_s)
                await asyncio.to_thread(migrate, OURS, url)
                for name in ORDER:
                    problems.extend(await _replaced(world.processes[name], OURS, RUNNING[name]))
                    await asyncio.sleep(pause_s)
                for name in BACK:
                    for whose in (old.program, OURS):
                        problems.extend(await _replaced(world.processes[name], whose, RUNNING[name]))
                        await asyncio.sleep(pause_s)
            finally:
                done.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(sender.run(pause_s, until=done))
            group.create_task(recorder.run(pause_s, done))
            group.create_task(map_late(world, 1))
            group.create_task(replace())
        loaded_s = time.monotonic() - begun
        problems += await settle(world, sender.load, print)
        problems += await asyncio.to_thread(reconciled, world.environ("reconcile"), _ROWS_LIMIT_S)
        owed = sender.load.owed
        print(
            f"answers to posts: {dict(sender.load.answers)}; events not recorded at the first try: {recorder.answers_lost}"
        )
        print(f"in the logs: {_seen(world)}")
        for process in world.processes.values():
            for death in process.deaths:
                print(death)
                if death.code != 0:
                    problems.append(f"{death}")
        figures = f"calls={len(owed.calls)} metered={len(owed.metered)} usd={owed.dollars():f}"
        took = f"load_s={loaded_s:.0f} all_s={time.monotonic() - begun:.0f}"
        return f"{'MISMATCH' if problems else 'EXACT'} {figures} {took}", problems


async def _replaced(process: Process, program: Sequence[str], words: Sequence[str]) -> list[str]:
    """Stop the process as an operator would, and start the other version."""
    async with process.busy:
        death = await process.terminate()
        process.becomes([*program, *words])
        process.start()
    await process.up(_UP_LIMIT_S)
    print(f"{process.name} is {'ours' if tuple(program) == OURS else 'the other version'}", flush=True)
    return [f"SIGTERM: {death}"] if death is not None and death.code != 0 else []


def migrate(program: Sequence[str], url: str) -> None:
    """Create or upgrade the tables."""
    environ = {"PATH": os.environ["PATH"], "DATABASE_URL": url}
    subprocess.run([*program, "db", "migrate"], env=environ, check=True, capture_output=True)


def reconciled(environ: Mapping[str, str], limit_s: float) -> list[str]:
    """Return the errors that this version's own command finds, once the rows are written, at most `limit_s` later."""
    done = subprocess.CompletedProcess[str]([], 1)

    def agrees() -> bool:
        nonlocal done
        done = subprocess.run([*OURS, "reconcile", "--lago"], env=environ, check=False, capture_output=True, text=True)
        return done.returncode == 0

    try:
        eventually(agrees, limit_s)
    except AssertionError:
        return [f"reconcile ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-1000:]}"]
    print(done.stdout)
    return []


def _seen(world: World) -> dict[str, int]:
    said: Counter[str] = Counter()
    for process in world.processes.values():
        text = process.log.read_text(errors="replace") if process.log.exists() else ""
        said.update({word: text.count(word) for word in _SEEN})
    return dict(said)


def main() -> int:
    """Return 0 when every cent was billed once."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    arguments.add_argument("--from", dest="folder", type=Path, required=True, help="work tree of the other version")
    arguments.add_argument("--rate", type=int, default=200, help="calls a second")
    arguments.add_argument("--pause", type=float, default=8.0, help="seconds between two replacements")
    chosen = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="meterbridge-upgrade-"))
    print(f"logs in {folder}", flush=True)
    old, server = Checkout(chosen.folder), start_postgres(os.environ)
    try:
        line, problems = asyncio.run(upgraded(old, folder, server.url, rate=chosen.rate, pause_s=chosen.pause))
    finally:
        server.stop()
    print("\n".join([*problems, line]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
