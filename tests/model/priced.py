"""Histories of rate cards: versions that start between calls, calls that arrive late, and orgs that pay only later."""

from dataclasses import replace

from hypothesis import strategies as st

from tests.model import history as h
from tests.model.history import DAY, HOUR, MINUTE, History, at
from tests.model.soundness import sound

_BEGINS = at("04-02 00:00:00")
#: When versions begin, and calls end near it.
_BORDERS = (at("04-14 12:00:30"), at("04-14 12:10:00"), at("04-14 13:00:00"))
_ENDS = tuple(border + apart for border in _BORDERS for apart in (-60, -1, 0, 1, 20))
_COSTS = ("0.01", None, "0.000000000003", "1", "0.0000091499999999999", None, None)
#: Of the dearest, one call is more than a cent.
_PRICES = ("0", "0.15", "7.5", "2000", "0.0000005", None, None)
_TOKENS = ((1, 0, 0, 2, 0), (1, 0, 0, 2, 0), (9, 4, 2, 7, 3), (5, 5, 0, 3, 3), (0, 0, 0, 1, 0), (7, 0, 7, 1, 0))

prices = st.sampled_from(_PRICES)
moments = st.sampled_from(_ENDS)


@st.composite
def cards(draw: st.DrawFn, number: int) -> h.Card:
    """A version; its name shows the order in which versions are stored."""
    factors = st.sampled_from(["0.5", "1.25", "0.0001", "3"])
    units = draw(st.sampled_from([True, True, False]))
    return h.Card(
        f"r{number}",
        draw(st.sampled_from([*_BORDERS, *_BORDERS, _BEGINS])),
        draw(st.sampled_from(["", "", "", "claude", "gpt-4o"])),
        None if units else draw(st.sampled_from(["20", "-10", "33.333333333333", "0", "-100"])),
        draw(st.tuples(prices, prices, prices, prices, prices)) if units else (None,) * 5,
        draw(st.sampled_from([None, None, "0.003"])) if units else None,
        draw(st.sampled_from(["0", "0", "0.004"])),
        draw(st.sampled_from(["1", "0.7"])),
        draw(st.sampled_from([(), (("org_a", draw(factors)),), (("org_a", draw(factors)), ("org_b", draw(factors)))])),
    )


@st.composite
def priced(draw: st.DrawFn) -> History:
    """A sound history."""
    known = draw(
        st.lists(
            st.builds(
                h.Call,
                st.sampled_from([0, 6, 1, 3, 9]),
                moments,
                st.sampled_from(_COSTS),
                tokens=st.sampled_from(_TOKENS),
                level=st.sampled_from(["", "", h.ECO]),
            ),
            min_size=1,
            max_size=5,
        )
    )
    drawn: list[h.Step] = []
    for known_call in draw(st.lists(st.sampled_from(known), min_size=1, max_size=9)):
        call = known_call
        come = call.ended + draw(st.sampled_from([0, 0, 0, 30, HOUR, 2 * HOUR, 25 * HOUR]))
        if not draw(st.integers(0, 4)):  # a copy with another cost, or without one
            call = replace(call, cost=draw(st.sampled_from(_COSTS)))
        drawn.append(draw(st.sampled_from([h.Arrives, h.Arrives, h.Arrives, h.Backfilled]))(come, call))
    drawn += draw(st.lists(st.builds(h.Polled, moments, st.just(0), st.sampled_from(_COSTS)), max_size=2))
    drawn.append(h.Put(_BEGINS, replace(draw(cards(0)), begins=_BEGINS)))
    for number in range(1, draw(st.integers(2, 4))):
        drawn.append(h.Put(draw(st.sampled_from([*[_BEGINS] * 12, *_ENDS, _ENDS[-1] + 3 * HOUR])), draw(cards(number))))
    pays = st.sampled_from([_BEGINS, _BEGINS, *_ENDS, _ENDS[-1] + 6 * HOUR])
    drawn += [h.Mapped(draw(pays), "ann", "org_a"), h.Mapped(draw(pays), "bob", "org_b")]
    drawn += [h.Subscribed(draw(pays), org, h.AI) for org in h.ORGS]
    drawn += draw(st.lists(st.builds(h.Mapped, moments, st.just("ann"), st.just("org_b")), max_size=1))
    restarts = st.builds(
        h.Restarted,
        st.sampled_from([_BEGINS, *_ENDS]),
        st.sampled_from([MINUTE, HOUR, 0]),
        decimals=st.sampled_from([12, 12, 6]),
        late=st.sampled_from([h.SHIFT, h.SHIFT, h.HOLD]),
    )
    drawn += draw(st.lists(restarts, max_size=2))
    drawn += [h.Tick(_ENDS[-1] + apart) for apart in draw(st.sampled_from([(), (MINUTE,), (2 * HOUR, 3 * HOUR)]))]
    later = _ENDS[-1] + DAY + 12 * HOUR
    drawn += [h.Requeued(later), h.WrittenOff(later, "ann")] if draw(st.booleans()) else [h.Requeued(later)]
    drawn = sorted(drawn, key=lambda step: step.at)
    names = iter(range(len(drawn)))
    drawn = [
        replace(step, card=replace(step.card, name=f"r{next(names)}")) if isinstance(step, h.Put) else step
        for step in drawn
    ]
    return sound(drawn, awake=True)
