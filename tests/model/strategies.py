"""Random histories: times near the borders of rules, few customers, few costs, so that cases coincide."""

from dataclasses import replace
from functools import cache

from hypothesis import strategies as st

from tests.model import history as h
from tests.model.history import DAY, HOUR, MINUTE, History, at
from tests.model.soundness import sound

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
#: Number of a subscription, and whether it is the org's own: with a second one that is not, none is chosen.
_WHICH = ((0, False), (1, True), (2, True), (1, False), (h.SHARED, False), (h.SHARED, True))
#: How our record gets a change in Lago: often not at all, because webhooks get lost.
_WAYS = (h.WEBHOOK, h.WEBHOOK, h.ANSWER, h.NOT, h.NOT, h.LEARNER)
#: When a mapping begins, from the moment that it is written: mostly as soon as it can.
_LEARNING = (h.WEBHOOK, h.ANSWER, h.LEARNER, h.POLL)
_BEGINS = (*[None] * 8, -20 * DAY, -HOUR, 0, h.LEAD, MINUTE, DAY, 10 * DAY)

#: When subscriptions end; how much later Lago counts the last invoice; what follows them.
_ENDS = (_BETWEEN[0], _BETWEEN[0] + 30, _BORDERS[1] + 30, _BORDERS[1] - 30, _BORDERS[1] - DAY)
_COUNTED = (0, 1, 30, MINUTE, 2 * MINUTE, 10 * MINUTE, HOUR, 5 * HOUR)
_NEXT = ((("org_a", 2),), (("org_a", 2),), (("org_a", h.SHARED),), (("org_a", 2), ("org_a", 1)), ())

customers = st.sampled_from(h.CUSTOMERS)
orgs = st.sampled_from(h.ORGS)
costs = st.sampled_from([*_COSTS, None])
plans = st.sampled_from([h.AI, h.AI, h.SEEK, h.BOTH])
few = st.integers(0, 1)
late = st.sampled_from([h.SHIFT, h.HOLD])
ways = st.sampled_from(_WAYS)
#: Numbers of subscriptions of the first plan: the one that an org begins with more often.
numbers = st.sampled_from([0, 0, 0, 1, h.SHARED, h.SHARED])

_places = st.integers(0, 8)

Pool = list[int]


def calls(pool: Pool, numbers: tuple[int, ...]) -> st.SearchStrategy[h.Call]:
    """A call that ends near one of the times."""
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
    """Usage arrives: one of the calls, maybe again, on one of the routes, with its cost, none, or another."""
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


@st.composite
def mapped(draw: st.DrawFn, moments: st.SearchStrategy[int], customer: str = "") -> h.Mapped:
    """A customer is mapped: maybe for one kind of id, to a named subscription, or from another time on."""
    moment, org = draw(moments), draw(st.sampled_from([*h.ORGS, *h.ORGS, h.TYPO]))
    name = h.name_of(draw(orgs) if not draw(st.integers(0, 5)) else org, h.AI, draw(numbers))
    apart = draw(st.sampled_from(_BEGINS))
    return h.Mapped(
        moment,
        customer or draw(customers),
        org,
        draw(st.sampled_from(["", "", "end_user"])),
        "" if draw(st.integers(0, 3)) else name,
        0 if apart is None else moment + apart,
    )


@cache
def changes() -> st.SearchStrategy[h.Step]:
    """The payer changes from now on; `placed` sets the time. Built once, because building a strategy takes longer than
    drawing.
    """
    return st.one_of(
        mapped(_places),
        st.builds(
            lambda at, org, plan, days_ago, which, way: h.Subscribed(at, org, plan, days_ago, *which, way),
            _places,
            orgs,
            plans,
            st.sampled_from([0, 0, 1, 20]),
            st.sampled_from(_WHICH),
            ways,
        ),
        st.builds(h.Terminated, _places, orgs, st.just(h.AI), numbers, ways),
        st.builds(h.Learnt, _places, orgs, st.sampled_from(_LEARNING)),
        st.builds(h.Unmapped, _places, customers, st.booleans()),
    )


@cache
def operations() -> st.SearchStrategy[h.Step]:
    """An operator or a failure intervenes; `placed` sets the time."""
    return st.one_of(
        st.builds(h.Tick, _places),
        st.builds(h.Tick, _places),
        st.builds(h.Requeued, _places),
        st.builds(h.WrittenOff, _places, customers),
        st.builds(h.Away, _places, st.booleans()),
        st.builds(
            h.Restarted,
            _places,
            st.sampled_from([MINUTE, MINUTE, HOUR, 0]),
            st.sampled_from([(), (), ("team_id",), ("user_id",)]),
            st.sampled_from([12, 12, 6]),
            late,
        ),
        st.builds(h.Pruned, _places),
    )


def placed(steps: list[h.Step], pool: Pool) -> list[h.Step]:
    """At some of those times, which are drawn."""
    found = []
    for step in steps:
        moment = pool[step.at % len(pool)]
        begins = step.begins + moment - step.at if isinstance(step, h.Mapped) and step.begins else 0
        found.append(replace(step, at=moment, **({"begins": begins} if begins else {})))
    return found


_some_changes, _some_operations = st.lists(changes(), max_size=6), st.lists(operations(), max_size=5)
_few_changes, _few_operations = st.lists(changes(), max_size=2), st.lists(operations(), max_size=1)


@st.composite
def histories(draw: st.DrawFn) -> History:
    """A sound history."""
    waits = not draw(st.integers(0, 2))  # one afternoon's usage of one customer, and no org is subscribed yet
    pool = sorted(draw(st.lists(st.sampled_from(_BETWEEN if waits else MOMENTS), min_size=2, max_size=7, unique=True)))
    known = draw(st.lists(calls(pool, _ANN_S if waits else _NUMBERS), min_size=1, max_size=5))
    # Some hours later held usage is merged; more hours later an operator acts.
    later = [*pool, pool[-1] + 3 * HOUR, pool[-1] + 6 * HOUR]
    drawn = [
        *draw(st.lists(deliveries(pool, known), max_size=12)),
        *placed(draw(_some_changes), later),
        *placed(draw(_some_operations), later),
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
    """An afternoon's usage of one customer that moves from org to org; all of it is held, merged, and then billed or
    written off.
    """
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


@st.composite
def ended(draw: st.DrawFn) -> History:
    """A subscription ends in Lago, mostly unnoticed, while its org's usage arrives; another one starts, maybe under the
    same external id, maybe for the other org; at some time our records learn of it.
    """
    pool = sorted(draw(st.lists(st.sampled_from([*_BETWEEN, *MOMENTS]), min_size=3, max_size=6, unique=True)))
    moments, end = st.sampled_from(pool), draw(st.sampled_from(pool[:2]))
    handed_on = draw(st.sampled_from([False, False, False, True]))  # the other org gets the external id
    number = h.SHARED if handed_on else draw(numbers)
    before = st.builds(h.Call, st.sampled_from(_ANN_S), st.sampled_from([end - 30, end, pool[0]]), costs)
    after = st.builds(h.Call, st.sampled_from(_ANN_S), st.sampled_from([end + 1, end + 90, *pool[1:]]), costs)
    used = [*draw(st.lists(after, min_size=1, max_size=3)), *draw(st.lists(before, max_size=2))]
    named = draw(st.sampled_from(["", "", h.name_of("org_a", h.AI, number), "shared"]))
    drawn: list[h.Step] = [
        h.Mapped(MOMENTS[0], "ann", "org_a", named=named),
        h.Mapped(MOMENTS[0], "bob", "org_b", named=draw(st.sampled_from(["", "shared"]))),
        h.Subscribed(MOMENTS[0], "org_a", h.AI, number=number),
        *(h.Arrives(call.ended + draw(st.sampled_from([0, 0, 30, HOUR])), call) for call in used),
        h.Terminated(end, "org_a", h.AI, number, draw(st.sampled_from([*[h.NOT] * 4, h.ANSWER, h.WEBHOOK]))),
        *draw(st.lists(st.builds(h.Learnt, moments, st.just("org_a"), st.sampled_from(_LEARNING)), max_size=2)),
        *placed(draw(_few_changes), pool),
        *placed(draw(_few_operations), pool),
    ]
    then = st.sampled_from([(), ("org_a",), ("org_a",), ("org_a",), ("org_b",), ("org_b", "org_a"), ("org_a", "org_a")])
    for org in draw(then):
        which = (
            draw(st.sampled_from([2, 2, 1, h.SHARED])) if number != h.SHARED else draw(st.sampled_from([2, h.SHARED]))
        )
        drawn.append(h.Subscribed(draw(st.sampled_from(pool[1:])), org, h.AI, number=which, way=draw(ways)))
    if handed_on:
        drawn += [
            h.Learnt(end + MINUTE, "org_a", way) for way in draw(st.sampled_from([(), (h.WEBHOOK,), (h.ANSWER,)]))
        ]
        then_at = draw(st.sampled_from([end + 1, end + 2 * MINUTE, *pool[1:]]))
        drawn.append(h.Subscribed(then_at, "org_b", h.AI, number=h.SHARED, way=draw(st.sampled_from([h.NOT, *_WAYS]))))
    if draw(st.sampled_from([False] * 5 + [True])):
        drawn.append(h.Restarted(draw(moments), late=h.HOLD))
    return sound(sorted(drawn, key=lambda step: step.at), awake=draw(st.sampled_from([True, True, True, False])))


@st.composite
def aged(draw: st.DrawFn) -> History:
    """One customer's mapping changes many times within hours, or is deleted; more than a month later it changes again,
    and late calls are requeued. Usage held in between stays with its org.
    """
    begins = at("04-02 00:00:00")
    drawn: list[h.Step] = [h.Mapped(begins, "ann", "org_a")]
    drawn += [
        h.Subscribed(begins, org, h.AI) for org in draw(st.sampled_from([("org_b",), ("org_b",), (), ("org_a",)]))
    ]
    moments = [_BETWEEN[0] + n * 10 * MINUTE for n in range(draw(st.sampled_from([8, 9, 10, 1])))]
    for moment in moments:
        orgs_then = ("org_b",) if drawn[-1] == h.Mapped(drawn[-1].at, "ann", "org_a") else ("org_a",)
        change: h.Step = h.Mapped(moment, "ann", draw(st.sampled_from([*orgs_then * 6, h.TYPO])))
        if len(moments) == 1:
            change = h.Unmapped(moment, "ann", deleted=True)
        elif draw(st.sampled_from([False] * 9 + [True])):
            change = h.Unmapped(moment, "ann", draw(st.booleans()))
        drawn.append(change)
    used = st.sampled_from([begins + HOUR, *(moment - MINUTE for moment in moments), moments[-1] + HOUR])
    drawn += [
        h.Arrives(moment, h.Call(0, moment, draw(costs)))
        for moment in draw(st.lists(used, min_size=1, max_size=4, unique=True))
    ]
    later = moments[-1] + draw(st.sampled_from([DAY, 30 * DAY, 32 * DAY, 32 * DAY]))
    drawn += draw(st.lists(mapped(st.just(later), "ann"), max_size=1))
    drawn += draw(st.lists(mapped(st.just(later + HOUR), "ann"), max_size=1))
    # Of a customer whose record is forgotten altogether nothing says that there was a past: no call of it comes.
    late_ones = used if len(moments) > 1 else st.just(moments[-1] + HOUR)
    again = st.builds(lambda moment, cost: h.Call(6, moment, cost), late_ones, st.sampled_from(_COSTS))
    drawn += [h.Arrives(later + 2 * HOUR, call) for call in draw(st.lists(again, max_size=1))]
    drawn += [h.Backfilled(later + 3 * HOUR, call) for call in draw(st.lists(again, max_size=1))]
    if draw(st.booleans()):
        drawn.append(h.Pruned(later + 3 * HOUR))
    drawn.append(h.Requeued(later + 4 * HOUR))
    said = st.builds(h.Mapped, st.just(later + 4 * HOUR + MINUTE), st.just("ann"), orgs, begins=used)
    drawn += draw(st.lists(said, max_size=1))
    drawn += [h.Subscribed(later + 5 * HOUR, org, h.AI, number=1) for org in h.ORGS]
    return sound(sorted(drawn, key=lambda step: step.at), awake=True)


@st.composite
def overtaken(draw: st.DrawFn) -> History:
    """A subscription ends, mostly unnoticed. Lago counts its last invoice at once, some time later, or never; usage
    from before the end is stored before and after that. At some time our records learn of the end.
    """
    end = draw(st.sampled_from([*_ENDS, *_ENDS, *_BORDERS]))
    number = draw(st.sampled_from([0, 0, 0, h.SHARED]))
    name = h.name_of("org_a", h.AI, number)
    counted = end + draw(st.sampled_from(_COUNTED))
    moments = st.sampled_from([end + 30, end + 90, counted, counted, counted, counted + 1, counted + 10 * MINUTE])
    used = st.builds(h.Call, st.sampled_from(_ANN_S), st.sampled_from([end - HOUR, end - 30, end - 1, end]), costs)
    come = st.builds(lambda moment, call: h.Arrives(max(moment, call.ended), call), moments, used)
    result = st.builds(
        lambda moment, number: h.Recorded(max(moment, end - 30), "org_a", number, end - 30), moments, st.integers(2, 5)
    )
    drawn: list[h.Step] = [
        h.Terminated(end, "org_a", h.AI, number, draw(st.sampled_from([*[h.NOT] * 7, h.WEBHOOK])), slow=True),
        *([h.Counted(counted, name)] if draw(st.integers(0, 7)) else []),
        *draw(st.lists(come, min_size=2, max_size=5)),
        *draw(st.lists(result, max_size=2)),
        h.Arrives(end - 2 * MINUTE, h.Call(0, end - 2 * MINUTE, draw(costs))),
    ]
    drawn = draw(st.permutations(drawn))  # within a second, it is this that decides
    begins = end - DAY
    plan = draw(st.sampled_from([h.AI, h.AI, h.BOTH]))
    drawn[:0] = [h.Restarted(begins, draw(st.sampled_from([0, 0, MINUTE]))), h.Mapped(begins, "ann", "org_a")]
    drawn.insert(0, h.Subscribed(begins, "org_a", plan, number=number))
    later = st.sampled_from([counted, counted + MINUTE, counted + HOUR, counted + 20 * HOUR])
    drawn += [
        h.Subscribed(draw(later) + 1, org, draw(plans), number=which, way=draw(ways))
        for org, which in draw(st.sampled_from(_NEXT))
    ]
    drawn += draw(st.lists(st.builds(h.Learnt, later, st.just("org_a"), st.sampled_from(_LEARNING)), max_size=2))
    drawn += draw(st.lists(st.builds(h.Tick, moments), max_size=2))
    for chance, step in (
        (4, h.Terminated(draw(later) + 2 * MINUTE, "org_a", h.AI, 2, h.NOT, draw(few) > 0)),
        (8, h.Counted(counted + 21 * HOUR, h.name_of("org_a", h.AI, 2))),
        (12, h.Restarted(draw(moments), draw(st.sampled_from([0, MINUTE])), late=h.HOLD)),
        (8, h.Away(draw(moments), away=True)),
    ):
        drawn += [step] if not draw(st.integers(0, chance)) else []
    return sound(sorted(drawn, key=lambda step: step.at), awake=draw(st.sampled_from([True, True, True, False])))


def anything() -> st.SearchStrategy[History]:
    """Any of the kinds of histories."""
    return st.one_of(histories(), histories(), waiting(), ended(), aged(), overtaken())
