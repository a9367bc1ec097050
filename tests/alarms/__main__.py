"""`make alarms-trial`: causes the fault of each alarm, one after the other; the right alarm must fire, and no other.

A real Kafka, Postgres and Prometheus on loopback, the product's processes, and stand-ins for two organisations of Lago. Times
in the rules are shortened (tests/alarms/shortened.py). Names of alarms as arguments try these alone; `--record` writes what
rang into tests/alarms/rang.json. Every query of the dashboards is asked, too. The last line says how many alarms rang of how
many; it begins with `RANG` or `WRONG`, and the exit code says the same.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.alarms.breakage import CONSEQUENCES, FAULTS, NOT_BROKEN
from tests.alarms.breakage.scene import Scene
from tests.alarms.monitor import Monitor
from tests.alarms.panels import queries
from tests.alarms.record import Rung, recorded, summary_lines
from tests.alarms.stage import scene_in

#: Seconds: until an alarm fires; how long another one may come after it; until all is quiet again.
_FIRES_S, _OTHERS_S, _QUIET_S = 200.0, 8.0, 180.0


class Trial(NamedTuple):
    """The result of a trial: the alarms that fired, alone or with their consequences; and what was wrong."""

    rang: dict[str, Rung]
    wrong: list[str]


async def run_trial(folder: Path, wanted: Sequence[str], *, record: bool = False) -> Trial:
    """Cause one fault after the other, and print a line for each; with `record` each result is written into the file at
    once.
    """
    trial = Trial({}, [])
    async with scene_in(folder) as scene:
        monitor = scene.monitor
        if not await monitor.until_quiet(_QUIET_S):
            trial.wrong.append(f"before any fault: {', '.join(sorted(await monitor.firing()))}")
        trial.wrong.extend(await failed_queries(monitor))
        print("| alarm | fired after | others | while it was fixed |\n|---|---|---|---|", flush=True)
        for name in wanted:
            await broken(scene, name, trial)
            if record:
                recorded(trial.rang, [name])
        trial.wrong.extend(f"{name}: its text has an error" for name in sorted(monitor.damaged))
    return trial


async def broken(scene: Scene, name: str, trial: Trial) -> None:
    """Cause the fault of an alarm, and repair it."""
    monitor = scene.monitor
    if not await monitor.until_quiet(_QUIET_S):
        trial.wrong.append(f"before {name}: {', '.join(sorted(await monitor.firing()))}")
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
    took = f"{after_s:.0f} s" if fired else "**never**"
    print(f"| {name} | {took} | {', '.join(others) or '-'} | {', '.join(later) or '-'} |", flush=True)
    unexplained = [other for other in others if other not in CONSEQUENCES.get(name, {})]
    if not fired or unexplained:
        trial.wrong.append(f"{name}: {took}, others: {unexplained}")
    else:
        trial.rang[name] = Rung(round(after_s), others)


async def failed_queries(monitor: Monitor) -> list[str]:
    """Send every query of the dashboards, and return those without an answer that must have one."""
    silent, count = [], 0
    for where, query, may_be_empty in queries("30s"):
        count += 1
        if not await monitor.query(query) and not may_be_empty:
            silent.append(f"{where}: no series")
    print(f"{count} queries of the dashboards were asked, {len(silent)} of them without an answer", flush=True)
    return silent


def main() -> int:
    """0 if each tested alarm fired, alone or with its consequences, and every rule has a fault or a reason why it has
    none.
    """
    parser = argparse.ArgumentParser(prog="make alarms-trial", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*FAULTS, []], default=[], metavar="NAME")
    parser.add_argument("--record", action="store_true", help="write what rang into tests/alarms/rang.json")
    options = parser.parse_args()
    wanted = options.names or list(FAULTS)
    folder = Path(tempfile.mkdtemp(prefix="meterbridge-alarms-"))
    print(f"logs in {folder}", flush=True)
    trial = asyncio.run(run_trial(folder, wanted, record=options.record))
    lines, complete = summary_lines(trial.rang, wanted, FAULTS, NOT_BROKEN)
    print("\n".join([*trial.wrong, *lines]))
    well = complete and not trial.wrong
    print(f"{'RANG' if well else 'WRONG'} {len(trial.rang)} of {len(wanted)} alarms")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
