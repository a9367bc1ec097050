"""Histories at random: moments near the borders that rules have, few customers, few costs, so that things collide."""

from dataclasses import replace

from hypothesis import strategies as st

from tests.model import history as h
from tests.model.history import DAY, HOUR, MINUTE, History, at

_BORDERS = (at("04-01 00:00:00"), at("05-01 00:00:00"))
_NEAR = (-3 * DAY, -DAY - HOUR, -HOUR, -90, -30, -1, 0, 1, h.LEAD, 30, 90, HOUR, DAY + HOUR, 3 * DAY)
_BETWEEN = tuple(at(f"04-14 12:{minute}:{second:02}") for minute in (14, 15) for second in (0, 1, h.LEAD, 30, 59))
#: All moments at which anything happens.
MOMENTS = tuple(sorted({border + apart for border in _BORDERS for apart in _NEAR} | {*_BETWEEN}))
#: How long ago a call ended when it arrives: mostly just now.
_SOON = (0, 1, 30, 2 * MINUTE, HOUR)
_LATE = (23 * HOUR - 1, 23 * HOUR, 23 * HOUR + 1, 25 * HOUR, 3 * DAY, 20 * DAY)
_LAGS = (*_SOON * 4, *_LATE)
COSTS = ("0.01", "0.07", "1", "0.004", "0.0000091499999999999")

#: Calls' numbers, those of customers that are billed from the beginning more often; one has another kind of id.
_NUMBERS = (0, 1, 3, 4, 6, 7, 2, 5)
_OF_A_USER = 4
#: Number of a subscription, and whether it is the org's own: a second one that is not leaves nobody to choose.
_WHICH = ((0, False), (1, True), (2, True), (1, False))

moments = st.sampled_from(MOMENTS)
customers = st.sampled_from(h.CUSTOMERS)
orgs = st.sampled_from(h.ORGS)
costs = st.sampled_from([*COSTS, None])
plans = st.sampled_from([h.AI, h.AI, h.SEEK, h.BOTH])


@st.composite
def calls(draw: st.DrawFn, moment: int) -> h.Call:
    """A call that ended before it arrives; by a lag, or at a moment that others have too."""
    if draw(st.integers(0, 4)):
        ended = moment - draw(st.sampled_from(_LAGS))
    else:
        ended = draw(st.sampled_from([other for other in MOMENTS if other <= moment]))
    number = draw(st.sampled_from(_NUMBERS))
    return h.Call(number, ended, draw(costs), "user" if number == _OF_A_USER else "end_user")


@st.composite
def deliveries(draw: st.DrawFn) -> h.Step:
    """Usage comes in."""
    moment = draw(moments)
    match draw(st.integers(0, 9)):
        case 0:
            return h.Backfilled(moment, draw(calls(moment)))
        case 2:
            return h.BackfilledJob(moment, draw(st.integers(0, 1)), draw(costs))
        case 3:
            return h.Recorded(moment, draw(orgs), draw(st.integers(0, 1)), draw(calls(moment)).ended)
        case 1:
            return h.Polled(moment, draw(st.integers(0, 1)), draw(costs))
    return h.Arrives(moment, draw(calls(moment)))


def changes() -> st.SearchStrategy[h.Step]:
    """Who pays is another from now on."""
    return st.one_of(
        st.builds(
            h.Mapped,
            moments,
            customers,
            st.sampled_from([*h.ORGS, *h.ORGS, h.TYPO]),
            st.sampled_from(["", "", "end_user"]),
        ),
        st.builds(
            lambda at, org, plan, days_ago, which: h.Subscribed(at, org, plan, days_ago, *which),
            moments,
            orgs,
            plans,
            st.sampled_from([0, 0, 1, 20]),
            st.sampled_from(_WHICH),
        ),
        st.builds(h.Terminated, moments, orgs, plans, st.integers(0, 1)),
        st.builds(h.Unmapped, moments, customers, st.booleans()),
    )


def operations() -> st.SearchStrategy[h.Step]:
    """Somebody or something intervenes."""
    return st.one_of(
        st.builds(h.Tick, moments),
        st.builds(h.Requeued, moments),
        st.builds(h.WrittenOff, moments, customers),
        st.builds(h.Away, moments, st.booleans()),
        st.builds(
            h.Restarted,
            moments,
            st.sampled_from([MINUTE, MINUTE, HOUR, 0]),
            st.sampled_from([(), (), ("team_id",), ("user_id",)]),
            st.sampled_from([12, 12, 6]),
        ),
    )


@st.composite
def histories(draw: st.DrawFn) -> History:
    """A sound history; mostly of a deployment in which two customers are billed already."""
    drawn = [
        *draw(st.lists(deliveries(), max_size=16)),
        *draw(st.lists(changes(), max_size=8)),
        *draw(st.lists(operations(), max_size=6)),
    ]
    begun: list[h.Step] = []
    if draw(st.integers(0, 5)):
        for customer, org in zip(h.CUSTOMERS, h.ORGS, strict=False):
            begun += [h.Mapped(MOMENTS[0], customer, org), h.Subscribed(MOMENTS[0], org, h.AI)]
    awake = draw(st.integers(0, 5)) > 0
    return sound(sorted([*begun, *drawn], key=lambda step: step.at), awake=awake)


def sound(steps: list[h.Step], *, awake: bool) -> History:
    """Without what cannot be; `awake`: the worker ticks after every moment at which something happened."""
    history: list[h.Step] = []
    names: set[str] = set()
    earliest = 0
    for number, step in enumerate(steps):
        moment = max(step.at, earliest)
        if isinstance(step, h.Subscribed):
            if step.subscription in names:
                continue
            names.add(step.subscription)
        ticks = isinstance(step, h.Tick)
        if not ticks:
            history.append(replace(step, at=moment))
            following = steps[number + 1].at if number + 1 < len(steps) else h.ENDS
            ticks = awake and following >= moment + 3 * MINUTE
            moment += MINUTE
        if ticks:
            history.append(h.Tick(ticking(moment)))
            earliest = history[-1].at + MINUTE
    last = ticking((history[-1].at if history else 0) + DAY)
    return (*history, h.Away(last, False), h.Tick(last), h.Tick(last + HOUR))


def ticking(moment: int) -> int:
    """The worker's turn soon after: not while a window's time and grace run out."""
    return moment + 20 - moment % MINUTE + (MINUTE if moment % MINUTE > 10 else 0)
