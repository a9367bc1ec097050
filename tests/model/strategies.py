"""Histories at random: moments near the borders that rules have, few customers, few costs, so that things collide."""

from dataclasses import replace

from hypothesis import strategies as st

from tests.model import history as h
from tests.model.history import DAY, HOUR, MINUTE, History, at

_BORDERS = (at("04-01 00:00:00"), at("05-01 00:00:00"))
_NEAR = (-3 * DAY, -DAY - HOUR, -HOUR, -90, -30, -1, 0, 1, 30, 90, HOUR, DAY + HOUR, 3 * DAY)
_BETWEEN = tuple(
    at(f"04-14 {time}") for time in ("12:14:00", "12:14:30", "12:15:00", "12:15:01", "13:20:00", "15:00:00", "20:00:00")
)
#: Whatever happens, happens at some of these.
MOMENTS = tuple(sorted({border + apart for border in _BORDERS for apart in _NEAR} | {*_BETWEEN}))
#: How long before one of them a call ended: mostly just then; or when a mapping that was made then begins to apply.
_APART = (*(0, 1, 30, HOUR, -h.LEAD) * 3, 23 * HOUR - 1, 23 * HOUR, 23 * HOUR + 1, 25 * HOUR, 3 * DAY, 20 * DAY)
_COSTS = ("0.01", "0.07", "1", "0.004", "0.0000091499999999999")
#: Calls' numbers, those of customers that are billed from the beginning more often; one has another kind of id.
_NUMBERS = (0, 6, 1, 7, 4, 0, 6, 1, 7, 4, 3, 2)
_ANN_S = (0, 6)
_OF_A_USER = 4
#: Number of a subscription, and whether it is the org's own: a second one that is not leaves nobody to choose.
_WHICH = ((0, False), (1, True), (2, True), (1, False))

customers = st.sampled_from(h.CUSTOMERS)
orgs = st.sampled_from(h.ORGS)
costs = st.sampled_from([*_COSTS, None])
plans = st.sampled_from([h.AI, h.AI, h.SEEK, h.BOTH])
few = st.integers(0, 1)

Pool = list[int]


def calls(pool: Pool, numbers: tuple[int, ...]) -> st.SearchStrategy[h.Call]:
    """A call that ends near one of the moments."""
    return st.builds(
        lambda number, moment, apart, cost: h.Call(
            number, moment - apart, cost, "user" if number == _OF_A_USER else "end_user"
        ),
        st.sampled_from(numbers),
        st.sampled_from(pool),
        st.sampled_from(_APART),
        st.sampled_from(_COSTS),
    )


@st.composite
def deliveries(draw: st.DrawFn, pool: Pool, known: list[h.Call]) -> h.Step:
    """Usage comes in: one of the calls, again perhaps, by one of the ways, with its cost, none, or another."""
    call = draw(st.sampled_from(known))
    moment = draw(st.sampled_from([other for other in pool if other >= call.ended] or [call.ended]))
    if not draw(st.integers(0, 3)):
        call = replace(call, cost=draw(costs))
    match draw(st.integers(0, 9)):
        case 0 | 1:
            return h.Backfilled(moment, call)
        case 2:
            return h.Polled(moment, draw(few), call.cost)
        case 3:
            return h.BackfilledJob(moment, draw(few), call.cost)
        case 4:
            return h.Recorded(moment, draw(orgs), draw(few), call.ended)
    return h.Arrives(moment, call)


def changes(pool: Pool) -> st.SearchStrategy[h.Step]:
    """Who pays is another from now on."""
    moments = st.sampled_from(pool)
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
        st.builds(h.Terminated, moments, orgs, plans, few),
        st.builds(h.Unmapped, moments, customers, st.booleans()),
    )


def operations(pool: Pool) -> st.SearchStrategy[h.Step]:
    """Somebody or something intervenes."""
    moments = st.sampled_from(pool)
    return st.one_of(
        st.builds(h.Tick, moments),
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
    """A sound history."""
    waits = not draw(st.integers(0, 2))  # one afternoon's usage of one customer, and nobody is subscribed yet
    pool = sorted(draw(st.lists(st.sampled_from(_BETWEEN if waits else MOMENTS), min_size=2, max_size=7, unique=True)))
    known = draw(st.lists(calls(pool, _ANN_S if waits else _NUMBERS), min_size=1, max_size=5))
    # Some hours later held usage is merged; more hours later somebody does something about it.
    later = [*pool, pool[-1] + 3 * HOUR, pool[-1] + 6 * HOUR]
    drawn = [
        *draw(st.lists(deliveries(pool, known), max_size=12)),
        *draw(st.lists(changes(later), max_size=6)),
        *draw(st.lists(operations(later), max_size=5)),
    ]
    if waits:
        drawn += [h.Tick(later[-2]), *(h.Subscribed(later[-1], org, h.AI) for org in h.ORGS)]
    for customer, org in zip(h.CUSTOMERS, h.ORGS, strict=False):
        # Who is mapped, and then subscribed, from the beginning, later, or not at all.
        if mapped := draw(st.sampled_from([MOMENTS[0], MOMENTS[0], MOMENTS[0], *pool, 0])):
            drawn.append(h.Mapped(mapped, customer, org, draw(st.sampled_from(["", "", "end_user"]))))
        if subscribed := 0 if waits else draw(st.sampled_from([MOMENTS[0], MOMENTS[0], MOMENTS[0], *pool, 0])):
            drawn.append(h.Subscribed(subscribed, org, h.AI))
    awake = draw(st.integers(0, 5)) > 0
    return sound(sorted(drawn, key=lambda step: step.at), awake=awake)


@st.composite
def waiting(draw: st.DrawFn) -> History:
    """An afternoon's usage of one customer, who moves from org to org; all of it is held, merged, and then billed or given up."""
    moments = st.sampled_from(_BETWEEN)
    arrivals = st.builds(
        lambda moment, number, cost: h.Arrives(moment, h.Call(number, moment, cost)),
        moments,
        st.sampled_from(_ANN_S),
        st.sampled_from(_COSTS),
    )
    drawn: list[h.Step] = [h.Mapped(MOMENTS[0], "ann", "org_a"), *draw(st.lists(arrivals, min_size=2, max_size=6))]
    drawn += [h.Mapped(moment, "ann", "org_b") for moment in draw(st.lists(moments, max_size=1))]
    end = _BETWEEN[-1] + 3 * HOUR
    drawn += [h.Tick(end), h.Tick(end + HOUR)]
    if draw(st.booleans()):
        drawn.append(h.WrittenOff(end + 2 * HOUR, "ann"))
    drawn += [h.Subscribed(end + 3 * HOUR, org, h.AI) for org in h.ORGS]
    return sound(sorted(drawn, key=lambda step: step.at), awake=True)


def anything() -> st.SearchStrategy[History]:
    """What the product is tried with."""
    return st.one_of(histories(), histories(), waiting())


def sound(steps: list[h.Step], *, awake: bool) -> History:
    """Without what cannot be; `awake`: the worker ticks after every moment at which something happened."""
    history: list[h.Step] = []
    names: set[object] = set()
    earliest = 0
    for number, step in enumerate(steps):
        moment = max(step.at, earliest)
        # An id of a subscription is used once, and who pays for a customer changes once a moment.
        if isinstance(step, h.Subscribed | h.Mapped | h.Unmapped):
            name = step.subscription if isinstance(step, h.Subscribed) else (step.customer, moment)
            if name in names:
                continue
            names.add(name)
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
