"""Histories at random: moments near the borders that rules have, few customers, few costs, so that things collide."""

from dataclasses import replace

from hypothesis import strategies as st

from tests.model.history import (
    AI,
    CUSTOMERS,
    DAY,
    ENDS,
    HOUR,
    MINUTE,
    ORGS,
    SEATS,
    TYPO,
    Arrives,
    Away,
    Backfilled,
    Call,
    History,
    Mapped,
    Polled,
    Requeued,
    Restarted,
    Step,
    Subscribed,
    Terminated,
    Tick,
    Unmapped,
    WrittenOff,
    at,
)

_BORDERS = (at("04-01 00:00:00"), at("05-01 00:00:00"))
_NEAR = (-3 * DAY, -DAY - HOUR, -HOUR, -90, -30, -1, 0, 1, 30, 90, HOUR, DAY + HOUR, 3 * DAY)
_BETWEEN = tuple(at(f"04-14 12:{minute}:{second:02}") for minute in (14, 15) for second in (0, 1, 30, 59))
#: All moments at which anything happens.
MOMENTS = tuple(sorted({border + apart for border in _BORDERS for apart in _NEAR} | {*_BETWEEN}))
#: How long ago a call ended when it arrives.
_LAGS = (0, 1, 30, 2 * MINUTE, HOUR, 23 * HOUR - 1, 23 * HOUR, 23 * HOUR + 1, 25 * HOUR, 3 * DAY, 20 * DAY)
COSTS = ("0.01", "0.07", "1", "0.004", "0.0000091499999999999", None)

moments = st.sampled_from(MOMENTS)
customers = st.sampled_from(CUSTOMERS)
orgs = st.sampled_from(ORGS)


@st.composite
def calls(draw: st.DrawFn, moment: int) -> Call:
    """A call that ended before it arrives; by a lag, or at a moment that others have too."""
    earlier = [other for other in MOMENTS if other <= moment]
    ended = draw(st.sampled_from([*(moment - lag for lag in _LAGS), *earlier]))
    number = draw(st.integers(0, 5))
    kind = "end_user" if number != 4 else "user"
    return Call(number, ended, draw(st.sampled_from(COSTS)), kind)


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """One step, by itself."""
    moment = draw(moments)
    kind = draw(st.sampled_from(_KINDS))
    match kind:
        case "arrives":
            return Arrives(moment, draw(calls(moment)))
        case "backfilled":
            return Backfilled(moment, draw(calls(moment)))
        case "polled":
            return Polled(moment, draw(st.integers(0, 1)), draw(st.sampled_from(COSTS)))
        case "mapped":
            org = draw(st.sampled_from([*ORGS, *ORGS, TYPO]))
            return Mapped(moment, draw(customers), org, draw(st.sampled_from(["", "", "end_user"])))
        case "subscribed":
            return Subscribed(
                moment,
                draw(orgs),
                draw(st.sampled_from([AI, AI, SEATS])),
                draw(st.sampled_from([0, 0, 1, 20])),
                draw(st.integers(0, 1)),
                draw(st.booleans()),
            )
        case "terminated":
            return Terminated(moment, draw(orgs), draw(st.sampled_from([AI, AI, SEATS])), draw(st.integers(0, 1)))
        case "unmapped":
            return Unmapped(moment, draw(customers), draw(st.booleans()))
        case "written_off":
            return WrittenOff(moment, draw(customers))
        case "away":
            return Away(moment, draw(st.booleans()))
        case "restarted":
            return Restarted(moment)
        case "requeued":
            return Requeued(moment)
        case _:
            return Tick(moment)


_KINDS = (
    *("arrives",) * 8,
    *("mapped",) * 2,
    *("subscribed",) * 2,
    *("tick",) * 4,
    *("backfilled", "polled", "polled", "terminated", "unmapped", "written_off", "away", "restarted", "requeued"),
)


@st.composite
def histories(draw: st.DrawFn) -> History:
    """A sound history of at most 30 drawn steps."""
    beginning = [Mapped(MOMENTS[0], "ann", "org_a"), Subscribed(MOMENTS[0], "org_a", AI)]
    drawn = draw(st.lists(steps(), max_size=30))
    begun = beginning if draw(st.booleans()) else []
    awake = draw(st.booleans())
    return sound(sorted([*begun, *drawn], key=lambda step: step.at), awake=awake)


def sound(steps: list[Step], *, awake: bool) -> History:
    """Without what cannot be; `awake`: the worker ticks after every moment at which something happened."""
    history: list[Step] = []
    names: set[str] = set()
    earliest = 0
    for number, step in enumerate(steps):
        moment = max(step.at, earliest)
        if isinstance(step, Subscribed):
            if step.subscription in names:
                continue
            names.add(step.subscription)
        ticks = isinstance(step, Tick)
        if not ticks:
            history.append(replace(step, at=moment))
            following = steps[number + 1].at if number + 1 < len(steps) else ENDS
            ticks = awake and following >= moment + 3 * MINUTE
            moment += MINUTE
        if ticks:
            history.append(Tick(ticking(moment)))
            earliest = history[-1].at + MINUTE
    last = ticking((history[-1].at if history else 0) + DAY)
    return (*history, Away(last, False), Tick(last), Tick(last + HOUR))


def ticking(moment: int) -> int:
    """The worker's turn soon after: not while a window's time and grace run out."""
    return moment + 20 - moment % MINUTE + (MINUTE if moment % MINUTE > 10 else 0)
