"""One run: load, faults, healing, and the verdict."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.faults.adversary import Adversary
from tests.faults.calls import CUSTOMERS
from tests.faults.evidence import Evidence
from tests.faults.load import Load, Sender
from tests.faults.oracle import billing_wrong, verdict
from tests.faults.plan import LAGO, MINUTE_S, Fault, Kind, draw_plan, too_few
from tests.faults.procs import Death
from tests.faults.recording import Recorder
from tests.faults.world import MASTER_KEY, ORGS, SECRET, TOKEN, World, mapped_late, running_world, subscription_of
from tests.support.eventually import PATIENCE
from tests.support.kafka import broker_kind

#: From the last call accepted and the last fault healed to every cent billed.
DRAIN_LIMIT_S = 150.0
MAPPED_LATE_S = (20.0, 40.0)
_ALARMS = ("partition_halted", "worker_ended", "worker_crashed", "stop_cut_short")
#: How many log lines with a traceback a summary shows: their beginning with the event, and their end with the error.
_SHOWN = 10
_COUNTED_LOG_EVENTS = (
    *_ALARMS,
    "stopped_with_error",
    "worker_begins_again",
    "partition_task_reopened",
    "partition_task_open_failed",
    "fetch_gap",
    "Traceback",
)


@dataclass(slots=True)
class Report:
    """The result of a run; `problems` is empty if it was exact."""

    seed: int
    broker: str
    problems: list[str] = field(default_factory=list)
    calls: int = 0
    metered: int = 0
    usd: str = "0"
    plan: Sequence[Fault] = ()
    done: list[Fault] = field(default_factory=list)
    fired: dict[str, int] = field(default_factory=dict)
    deaths: list[Death] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    log_events: dict[str, int] = field(default_factory=dict)
    tracebacks: list[str] = field(default_factory=list)
    load_s: float = 0.0
    drain_s: float = 0.0
    folder: Path = Path()
    tails: dict[str, str] = field(default_factory=dict)

    @property
    def faults(self) -> int:
        """Faults that were really done."""
        return len(self.done) + sum(self.fired.values())

    def line(self) -> str:
        """Return the verdict on one line."""
        word = "EXACT" if not self.problems else "MISMATCH"
        return f"{word} calls={self.calls} usd={self.usd} faults={self.faults} seed={self.seed}"

    def summary(self) -> list[str]:
        """Return a summary for people."""
        kinds = Counter(fault.kind.value for fault in self.done) + Counter(self.fired)
        by_itself = Counter(f"{d.name} {d.code}" for d in self.deaths if d.cause == "by itself")
        return [
            f"seed {self.seed}, {self.broker}",
            f"load and faults {self.load_s:.0f} s, drained {self.drain_s:.0f} s after the last fault",
            f"answers: {dict(self.answers)}; {self.metered} metered events beside the calls",
            f"faults: {dict(kinds)}",
            f"ended by themselves: {dict(by_itself)}",
            f"in the logs: {self.log_events}",
            *self.tracebacks[:_SHOWN],
        ]

    def story(self) -> str:
        """Return everything that a reader needs to find the cause."""
        parts = ["PROBLEMS", *self.problems, "", *self.summary(), "", "PLAN", *map(str, self.plan), "", "DEATHS"]
        parts += map(str, sorted(self.deaths, key=lambda death: death.at_s))
        for name, tail in self.tails.items():
            parts += ["", f"LOG {name}", tail]
        return "\n".join([*parts, "", f"logs in {self.folder}"])


async def run(
    seed: int,
    environ: Mapping[str, str],
    folder: Path,
    *,
    minutes: int = 1,
    rate: int = 300,
    say: Callable[[str], None] = print,
    forked: bool = False,
) -> Report:
    """Run the plan of `seed` against a new world; logs stay in `folder`. `forked`: see tests/support/warm.py."""
    ours = broker_kind(environ) != "configured"
    plan = draw_plan(seed, minutes, broker=ours)
    say(f"seed {seed}: {len(plan)} faults in {minutes} min; FAULT_SEED={seed} repeats them; logs in {folder}")
    if not ours:
        say("the broker is not ours: it is not killed")
    async with running_world(environ, folder, forked=forked) as world:
        report = Report(seed, world.broker.describe(), plan=plan, folder=folder)
        sender = Sender(
            world.url("ingress") + "/webhook/litellm/usage", token=TOKEN, secret=SECRET, seed=seed, rate=rate
        )
        recorder = Recorder(world.url("api"), MASTER_KEY, sender.load.owed, ORGS, seed)
        adversary = Adversary(world.processes, world.broker, world.url("sandbox"))
        healed = asyncio.Event()

        async def harm() -> None:
            await adversary.run(plan, world.clock_s)
            healed.set()

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(sender.run(minutes * MINUTE_S, until=healed))
                group.create_task(recorder.run(minutes * MINUTE_S, healed))
                group.create_task(harm())
                group.create_task(map_late(world, seed))
        except* Exception as errors:  # the evidence is gathered all the same
            report.problems += _leaves(errors)
        await adversary.lago_heals(DRAIN_LIMIT_S)
        report.load_s = world.clock_s()
        report.problems += await settle(world, sender.load, say)
        report.drain_s = world.clock_s() - report.load_s
        await _account(report, world, sender.load, adversary)
        report.problems += _uncovered(report, minutes, broker=ours)
        report.problems += await _stop(world)
    return report


def _leaves(errors: BaseExceptionGroup[BaseException]) -> list[str]:
    return [
        leaf
        for error in errors.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [f"{type(error).__name__}: {error}"])
    ]


async def map_late(world: World, seed: int) -> None:
    random = Random(f"mapping/{seed}")

    async def later(customer: str, at_s: float) -> None:
        await asyncio.sleep(at_s)
        await world.map(customer)

    late = [(customer, random.uniform(*MAPPED_LATE_S)) for customer in CUSTOMERS if mapped_late(customer)]
    await asyncio.gather(*(later(customer, at_s) for customer, at_s in late))


async def settle(world: World, load: Load, say: Callable[[str], None], limit_s: float = DRAIN_LIMIT_S) -> list[str]:
    """Wait until everything is billed, at most `limit_s`; then judge the state."""
    evidence = Evidence(world.broker.bootstrap, world.topics, world.url("sandbox"))
    subscriptions = {customer: subscription_of(customer) for customer in CUSTOMERS}
    of_orgs = {org: "sub-" + org for org in ORGS}
    owed = load.owed.by_subscription(subscriptions)
    deadline = time.monotonic() + limit_s * PATIENCE
    late = []
    while time.monotonic() < deadline:
        if not billing_wrong(await evidence.stats(), owed) and await evidence.all_settled():
            break
        await asyncio.sleep(1.0)
    else:
        late = [f"not settled within {limit_s:.0f} s"]
    say("judging")
    return late + verdict(await evidence.gather(), load.owed, subscriptions, of_orgs)


async def _account(report: Report, world: World, load: Load, adversary: Adversary) -> None:
    report.calls, report.usd = len(load.owed.calls), f"{load.owed.dollars():f}"
    report.metered = len(load.owed.metered)
    report.done, report.answers = adversary.done, load.answers
    report.problems += [f"refused: {refused}" for refused in load.refused] + adversary.problems
    report.fired = await adversary.fired()
    for name, process in world.processes.items():
        report.deaths += process.deaths
        said = process.log.read_text(errors="replace") if process.log.exists() else ""
        for event in _COUNTED_LOG_EVENTS:
            report.log_events[event] = report.log_events.get(event, 0) + said.count(event)
        traced = (line for line in said.splitlines() if "Traceback" in line)
        report.tracebacks += [f"{name}: {line[:200]} ... {line[-300:]}" for line in traced]
        report.tails[name] = said[-1500:]
        if "partition_halted" in said:
            report.problems.append(f"{name} halted a partition task")


def _uncovered(report: Report, minutes: int, *, broker: bool) -> list[str]:
    """Return the kinds of faults of which too few really happened."""
    lago = [fault for fault in report.plan if fault.kind in LAGO]
    done = [*report.done, *(lago if all(report.fired.get(k.value, 0) >= 3 * minutes for k in LAGO) else ())]
    return [f"too few: {what}" for what in too_few(done, minutes) if broker or Kind.BROKER.value not in what]


async def _stop(world: World) -> list[str]:
    """Stop everything as an operator would."""
    running = [process for process in world.processes.values() if process.wanted]
    deaths = await asyncio.gather(*(process.terminate() for process in running))
    return [f"SIGTERM at the end: {d}" for d in deaths if d is not None and d.code != 0]
