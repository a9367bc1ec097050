"""The plan of faults: drawn from a seed, equal for equal seeds, and with enough faults of every kind.

A minute of load contains all kinds of faults below; a longer run is a sequence of such minutes, each drawn again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

MINUTE_S = 60.0
#: The default transaction timeout and session timeout: freezes end below, between and above them.
TRANSACTION_S, SESSION_S = 12.0, 15.0
FREEZES_S = ((9.0, 11.5), (12.5, 14.5), (16.0, 25.0))
#: Longer than the default LAGO_TIMEOUT: the sink stops waiting although the event is stored.
BEYOND_LAGO_TIMEOUT_S = (31.0, 34.0)

METERS, SINKS = ("meter-0", "meter-1"), ("sink-0", "sink-1")
WORKERS = ("worker-0", "worker-1")
#: A worker is a process a role; the third one joins and leaves.
MEMBERS = {f"worker-{n}": (f"meter-{n}", f"sink-{n}") for n in range(3)}


class Kind(StrEnum):
    """The kind of fault."""

    KILL = "kill -9"
    FREEZE = "SIGSTOP"
    ROLL = "SIGTERM and restart"
    BROKER = "broker kill -9"
    JOIN = "third worker joins and leaves"
    LAGO_429 = "Lago: 429"
    LAGO_500 = "Lago: 500"
    LAGO_DROP = "Lago: dropped before storing"
    LAGO_TIMEOUT = "Lago: timeout after accepting"


LAGO = (Kind.LAGO_429, Kind.LAGO_500, Kind.LAGO_DROP, Kind.LAGO_TIMEOUT)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Fields:
        at_s: seconds after the load began.
        lasts_s: how long the target is down, frozen, joined or silent.
        holds_s: no other fault touches its targets in `[at_s, at_s + holds_s)`.
    """

    at_s: float
    kind: Kind
    target: str
    lasts_s: float
    holds_s: float

    @property
    def touches(self) -> tuple[str, ...]:
        """The processes it happens to."""
        return MEMBERS.get(self.target, (self.target,))

    def __str__(self) -> str:
        return f"{self.at_s:6.1f} s  {self.kind}: {self.target}, {self.lasts_s:.1f} s"


#: The minimum contents of a minute: (description, number, which faults count).
_LEAST = (
    ("kill -9 of meters", 3, lambda f: f.kind is Kind.KILL and f.target in METERS),
    ("kill -9 of sinks", 3, lambda f: f.kind is Kind.KILL and f.target in SINKS),
    ("kill -9 of the ingress", 3, lambda f: f.kind is Kind.KILL and f.target == "ingress"),
    ("kill -9 of the API", 1, lambda f: f.kind is Kind.KILL and f.target == "api"),
    ("SIGSTOP of workers", 3, lambda f: f.kind is Kind.FREEZE),
    ("SIGSTOP below the transaction timeout", 1, lambda f: f.kind is Kind.FREEZE and f.lasts_s < TRANSACTION_S),
    ("SIGSTOP above the session timeout", 1, lambda f: f.kind is Kind.FREEZE and f.lasts_s > SESSION_S),
    ("Lago silent past LAGO_TIMEOUT", 1, lambda f: f.kind is Kind.LAGO_TIMEOUT and f.lasts_s > 30),
    ("rolling restarts", 3, lambda f: f.kind is Kind.ROLL),
    ("broker kill -9", 3, lambda f: f.kind is Kind.BROKER),
    ("rebalances by a third worker", 3, lambda f: f.kind is Kind.JOIN),
    *((kind.value, 3, lambda f, kind=kind: f.kind is kind) for kind in LAGO),
)


def draw_plan(seed: int, minutes: int = 1, *, broker: bool = True) -> list[Fault]:
    """Return the faults of a run, in order of time; without `broker` the broker is left alone, all else stays the same."""
    plan: list[Fault] = []
    for minute in range(minutes):
        drawn = _draw_minute(Random(f"{seed}/{minute}"))
        plan += [replace(fault, at_s=fault.at_s + minute * MINUTE_S) for fault in drawn]
    return sorted((f for f in plan if broker or f.kind is not Kind.BROKER), key=lambda f: f.at_s)


def shortfalls(plan: Sequence[Fault], minutes: int = 1) -> list[str]:
    """Return the errors of the plan: kinds that are too rare, faults that overlap on one process or last longer than
    the load.
    """
    found = too_few(plan, minutes)
    found += [f"after the load: {fault}" for fault in plan if fault.at_s + fault.lasts_s > minutes * MINUTE_S]
    found += [f"overlap: {a} / {b}" for i, a in enumerate(plan) for b in plan[i + 1 :] if _collide(a, b)]
    return found


def too_few(faults: Iterable[Fault], minutes: int = 1) -> list[str]:
    """Return the kinds that are too rare among `faults`."""
    faults, found = list(faults), []
    for what, least, counts in _LEAST:
        number = sum(map(counts, faults))
        if number < least * minutes:
            found.append(f"{what}: {number} of {least * minutes}")
    return found


def _draw_minute(random: Random) -> list[Fault]:
    """Place the longest faults first, each at a random free place; if there is no place left, draw again."""
    while True:
        placed: list[Fault] = []
        for draft, targets in sorted(_wanted(random), key=lambda wanted: -wanted[0].holds_s):
            for _ in range(200):
                at_s = random.uniform(1.0, MINUTE_S - draft.holds_s)
                fault = replace(draft, at_s=at_s, target=random.choice(targets))
                if not any(_collide(fault, other) for other in placed):
                    placed.append(fault)
                    break
            else:
                break
        else:
            return placed


def _wanted(random: Random) -> list[tuple[Fault, Sequence[str]]]:
    """Return a minute's faults without their time, and the targets each may have."""

    def fault(kind: Kind, lasts_s: tuple[float, float], then_s: float) -> Fault:
        drawn_s = random.uniform(*lasts_s)
        return Fault(0.0, kind, "", drawn_s, drawn_s + then_s)

    wanted: list[tuple[Fault, Sequence[str]]] = []
    for targets in (METERS, SINKS, ("ingress",)):
        wanted += [(fault(Kind.KILL, (0.5, 3.0), 3.0), targets) for _ in range(3)]
    wanted += [(fault(Kind.KILL, (0.5, 3.0), 3.0), ("retry-0",))]
    wanted += [(fault(Kind.KILL, (0.5, 3.0), 3.0), ("api",))]
    wanted += [(fault(Kind.FREEZE, band, 2.0), METERS) for band in FREEZES_S]
    wanted += [(fault(Kind.FREEZE, random.choice(FREEZES_S), 2.0), SINKS)]
    wanted += [(fault(Kind.ROLL, (0.0, 0.5), 8.0), WORKERS) for _ in range(3)]
    wanted += [(fault(Kind.ROLL, (0.0, 0.5), 8.0), ("ingress",))]
    wanted += [(fault(Kind.BROKER, (0.5, 2.0), 14.0), ("broker",)) for _ in range(3)]
    wanted += [(fault(Kind.JOIN, (5.0, 8.0), 10.0), ("worker-2",)) for _ in range(3)]
    wanted += [(fault(kind, (1.0, 6.0), 0.0), ("lago",)) for kind in LAGO for _ in range(3)]
    wanted += [(fault(Kind.LAGO_TIMEOUT, BEYOND_LAGO_TIMEOUT_S, 0.0), ("lago",))]
    return wanted


def _collide(a: Fault, b: Fault) -> bool:
    apart = a.at_s + a.holds_s <= b.at_s or b.at_s + b.holds_s <= a.at_s
    return "lago" not in (a.target, b.target) and not apart and bool(set(a.touches) & set(b.touches))
